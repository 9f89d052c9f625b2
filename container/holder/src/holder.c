/* The holder: it keeps the read ends of pipes open while crid is not there to
 * read them, and does nothing else. crid sends them over a unix socket; what was
 * written to a pipe is kept by the kernel for as long as somebody has it open.
 *
 * Freestanding, so that it is a few pages of memory and a file small enough to
 * be embedded. Built by `make holder`; see doc.go, and wire.go for the packets.
 *
 * Arguments: for how many milliseconds it stays with nothing to do, and the path
 * of its socket. File 3 is that socket, bound. */

#if defined(__x86_64__)
enum {
  SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_getpid = 39, SYS_sendmsg = 46, SYS_recvmsg = 47, SYS_listen = 50,
  SYS_getsockopt = 55, SYS_clone = 56, SYS_geteuid = 107, SYS_setsid = 112, SYS_prctl = 157, SYS_exit_group = 231,
  SYS_newfstatat = 262, SYS_ppoll = 271, SYS_accept4 = 288, SYS_pipe2 = 293, SYS_prlimit64 = 302, SYS_close_range = 436
};
static long sys(long n, long a, long b, long c, long d, long e) {
  long r;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return r;
}
__asm__(".globl _start\n_start: xor %ebp,%ebp\nmov %rsp,%rdi\nand $-16,%rsp\ncall start\n");
#elif defined(__aarch64__)
enum {
  SYS_read = 63, SYS_write = 64, SYS_close = 57, SYS_getpid = 172, SYS_sendmsg = 211, SYS_recvmsg = 212, SYS_listen = 201,
  SYS_getsockopt = 209, SYS_clone = 220, SYS_geteuid = 175, SYS_setsid = 157, SYS_prctl = 167, SYS_exit_group = 94,
  SYS_newfstatat = 79, SYS_ppoll = 73, SYS_accept4 = 242, SYS_pipe2 = 59, SYS_prlimit64 = 261, SYS_close_range = 436
};
static long sys(long n, long a, long b, long c, long d, long e) {
  register long x8 __asm__("x8") = n;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
__asm__(".globl _start\n_start: mov x29,#0\nmov x30,#0\nmov x0,sp\nbl start\n");
#else
#error "no system calls for this architecture"
#endif

typedef unsigned int u32;
typedef unsigned long u64;

/* What the kernel's interface has, the same for both architectures. */
enum { ENOENT = 2, EINTR = 4, EAGAIN = 11, EINVAL = 22, EMFILE = 24, ENOSPC = 28, EPROTO = 71 };
enum { SIGCHLD = 17, AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100, CLOEXEC = 0x80000, NONBLOCK = 0x800, PR_SET_NAME = 15, RLIMIT_NOFILE = 7 };
enum { SOL_SOCKET = 1, SO_PEERCRED = 17, SCM_RIGHTS = 1, POLLIN = 1 };
enum { MSG_CTRUNC = 0x8, MSG_TRUNC = 0x20, MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000, MSG_CMSG_CLOEXEC = 0x40000000 };
struct iovec { void *base; u64 len; };
struct msghdr { void *name; u32 namelen; struct iovec *iov; u64 iovlen; void *control; u64 controllen; u32 flags; };
struct cmsg { u64 len; int level, type; };
struct pollfd { int fd; short events, revents; };
struct timespec { long sec, nsec; };
struct ucred { int pid; u32 uid, gid; };
struct file { u64 dev, ino, rest[30]; }; /* struct stat begins so */

/* The packets, as in wire.go. */
enum { MAGIC = 0x63726468, VERSION = 1, IDLEN = 64, PAGE = 32 };
enum { HELLO = 0, END = 1, HOLD = 2, DROP = 3, LIST = 4 };
struct request { u32 magic, version, op, seq, from, unused; char id[IDLEN]; } __attribute__((aligned(8)));
struct answer { u32 magic, version, seq; int err; u32 pid, ids, fds, next, n, unused; char id[PAGE][IDLEN]; } __attribute__((aligned(8)));
#define ANSWER_HEAD (sizeof(struct answer) - PAGE * IDLEN)

/* What is held. Memory is used up to the highest slot taken. */
enum { SLOTS = 8192, EACH = 4, CLIENTS = 8, LISTENER = 3, SPARE = 24 };
static struct slot { char id[IDLEN]; u32 n; int fd[EACH]; } __attribute__((aligned(8))) slots[SLOTS]; /* n == 0: free */
static u32 top, ids, fds, most; /* most: as many files may be held */
static int client[CLIENTS];
static u32 clients;

static void closefd(int fd) { sys(SYS_close, fd, 0, 0, 0, 0); }
static void quit(int code) { sys(SYS_exit_group, code, 0, 0, 0, 0); }

static int same(const char *a, const char *b) {
  const u64 *x = (const u64 *)a, *y = (const u64 *)b;
  u64 d = 0;
  for (int i = 0; i < IDLEN / 8; i++) d |= x[i] ^ y[i];
  return d == 0;
}

static void copy(char *to, const char *from) {
  for (int i = 0; i < IDLEN / 8; i++) ((volatile u64 *)to)[i] = ((const u64 *)from)[i];
}

static struct slot *find(const char *id) {
  for (u32 i = 0; i < top; i++)
    if (slots[i].n && same(slots[i].id, id)) return &slots[i];
  return 0;
}

static void drop(struct slot *s) {
  for (u32 i = 0; i < s->n; i++) closefd(s->fd[i]);
  fds -= s->n;
  ids--;
  s->n = 0;
  while (top && !slots[top - 1].n) top--;
}

/* hold takes the files over; what was held by that id goes after that. */
static int hold(const char *id, const int *fd, u32 n) {
  if (!n) return EINVAL;
  if (fds + n > most) return EMFILE;
  struct slot *old = find(id), *s = slots;
  while (s < slots + top && s->n) s++;
  if (s == slots + SLOTS) return ENOSPC;
  if (s == slots + top) top++;
  copy(s->id, id);
  for (u32 i = 0; i < n; i++) s->fd[i] = fd[i];
  s->n = n;
  ids++;
  fds += n;
  if (old) drop(old);
  return 0;
}

static void list(struct answer *a, u32 from) {
  for (; from < top && a->n < PAGE; from++)
    if (slots[from].n) copy(a->id[a->n++], slots[from].id);
  a->next = from < top ? from : 0;
}

/* serve reads one packet and answers it. It is false if the client has to go. */
static int serve(int c) {
  struct request q;
  static struct answer a;
  union { u64 align; struct { struct cmsg head; int fd[EACH]; } s; } ctl;
  struct iovec iov = {&q, sizeof q};
  struct msghdr m = {0, 0, &iov, 1, &ctl, sizeof ctl, 0};
  long len = sys(SYS_recvmsg, c, (long)&m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, 0, 0);
  if (len == -EAGAIN || len == -EINTR) return 1;
  if (len <= 0) return 0;
  u32 n = 0;
  if (m.controllen >= sizeof ctl.s.head && ctl.s.head.level == SOL_SOCKET && ctl.s.head.type == SCM_RIGHTS)
    n = (u32)((ctl.s.head.len - sizeof ctl.s.head) / sizeof(int));
  if (n > EACH) n = EACH; /* not from a kernel */
  int taken = 0;
  int whole = len == sizeof q && !(m.flags & MSG_TRUNC) && q.magic == MAGIC;
  if (whole) {
    a.magic = MAGIC, a.version = VERSION, a.seq = q.seq, a.err = 0, a.next = 0, a.n = 0;
    a.pid = (u32)sys(SYS_getpid, 0, 0, 0, 0, 0);
    if (q.op > END && q.version != VERSION) a.err = EPROTO;
    else if (m.flags & MSG_CTRUNC) a.err = EMFILE; /* too many, or no more can be had */
    else if (q.op == HOLD) taken = !(a.err = hold(q.id, ctl.s.fd, n));
    else if (q.op == DROP) {
      struct slot *s = find(q.id);
      if (s) drop(s);
      else a.err = ENOENT;
    } else if (q.op == LIST) list(&a, q.from);
    else if (q.op > LIST) a.err = EINVAL;
    a.ids = ids, a.fds = fds;
  }
  for (u32 i = 0; i < n && !taken; i++) closefd(ctl.s.fd[i]);
  if (!whole) return 0;
  iov.base = &a, iov.len = ANSWER_HEAD + a.n * IDLEN;
  m.control = 0, m.controllen = 0, m.flags = 0;
  long sent = sys(SYS_sendmsg, c, (long)&m, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
  if (q.op == END) quit(0);
  return sent > 0; /* who does not read the answers has to go */
}

static void welcome(void) {
  int c = (int)sys(SYS_accept4, LISTENER, 0, 0, CLOEXEC | NONBLOCK, 0);
  if (c < 0) { /* the machine is out of something: do not ask all the time */
    struct timespec t = {0, 100000000};
    sys(SYS_ppoll, 0, 0, (long)&t, 0, 8);
    return;
  }
  struct ucred who;
  u32 len = sizeof who;
  long err = sys(SYS_getsockopt, c, SOL_SOCKET, SO_PEERCRED, (long)&who, (long)&len);
  if (err || (who.uid && who.uid != (u32)sys(SYS_geteuid, 0, 0, 0, 0, 0)) || clients == CLIENTS) {
    closefd(c);
    return;
  }
  client[clients++] = c;
}

static int look(const char *path, struct file *f) { return (int)sys(SYS_newfstatat, AT_FDCWD, (long)path, (long)f, AT_SYMLINK_NOFOLLOW, 0); }

static void run(const char *path, long idle) {
  static struct file born, now;
  look(path, &born);
  for (;;) {
    struct pollfd p[1 + CLIENTS];
    p[0].fd = LISTENER, p[0].events = POLLIN, p[0].revents = 0;
    for (u32 i = 0; i < clients; i++) p[1 + i].fd = client[i], p[1 + i].events = POLLIN, p[1 + i].revents = 0;
    struct timespec t = {idle / 1000, idle % 1000 * 1000000};
    u32 asked = clients;
    long r = sys(SYS_ppoll, (long)p, 1 + asked, clients ? 0 : (long)&t, 0, 8);
    /* Nothing to do, or nobody can ever come: its socket is gone. */
    if (r == 0 && (!ids || look(path, &now) || now.ino != born.ino || now.dev != born.dev)) quit(0);
    if (r <= 0) continue;
    for (u32 i = asked; i-- > 0;)
      if (p[1 + i].revents && !serve(client[i])) {
        closefd(client[i]);
        client[i] = client[--clients];
      }
    if (p[0].revents) welcome();
  }
}

/* start makes a process of its own, that is nobody's child, and ends when that
 * one listens. */
__attribute__((used)) void start(const u64 *stack) {
  const char **argv = (const char **)(stack + 1);
  if (stack[0] < 3) quit(2);
  long idle = 0;
  for (const char *s = argv[1]; *s >= '0' && *s <= '9' && idle < 100000000; s++) idle = idle * 10 + (*s - '0');
  int ready[2];
  char byte = 0;
  sys(SYS_close_range, LISTENER + 1, ~0U, 0, 0, 0);
  if (sys(SYS_pipe2, (long)ready, CLOEXEC, 0, 0, 0)) quit(1);
  long pid = sys(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  if (pid < 0) quit(1);
  if (pid) {
    closefd(ready[1]);
    quit(sys(SYS_read, ready[0], (long)&byte, 1, 0, 0) != 1);
  }
  closefd(ready[0]);
  sys(SYS_setsid, 0, 0, 0, 0, 0);
  sys(SYS_prctl, PR_SET_NAME, (long)"crid-holder", 0, 0, 0);
  u64 limit[2] = {0, 0};
  sys(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)limit, 0);
  limit[0] = limit[1];
  sys(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)limit, 0, 0);
  /* Some are kept back for clients and for what a packet brings. */
  most = limit[0] > SLOTS * EACH + SPARE ? SLOTS * EACH : limit[0] > SPARE ? (u32)limit[0] - SPARE : 0;
  /* Who listens is whom SO_PEERCRED names. */
  if (sys(SYS_listen, LISTENER, CLIENTS, 0, 0, 0)) quit(1);
  sys(SYS_write, ready[1], (long)&byte, 1, 0, 0);
  closefd(ready[1]);
  run(argv[2], idle);
}

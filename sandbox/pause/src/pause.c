/* The sandbox process: it holds a process namespace open, reaps what is
 * orphaned in it, and goes on SIGTERM or SIGINT. Freestanding, so that it is
 * one page of memory and a file small enough to be embedded. Built by
 * `make pause`; see pause.go. */

#if defined(__x86_64__)
enum { SYS_rt_sigprocmask = 14, SYS_rt_sigtimedwait = 128, SYS_wait4 = 61, SYS_exit_group = 231 };
static long sys(long n, long a, long b, long c, long d) {
  long r;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return r;
}
#elif defined(__aarch64__)
enum { SYS_rt_sigprocmask = 135, SYS_rt_sigtimedwait = 137, SYS_wait4 = 260, SYS_exit_group = 94 };
static long sys(long n, long a, long b, long c, long d) {
  register long x8 __asm__("x8") = n;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
  return x0;
}
#else
#error "no system calls for this architecture"
#endif

enum { SIGINT = 2, SIGTERM = 15, SIGCHLD = 17, SIG_BLOCK = 0, WNOHANG = 1 };
#define BIT(s) (1UL << ((s) - 1))

void _start(void) {
  unsigned long mask = BIT(SIGINT) | BIT(SIGTERM) | BIT(SIGCHLD);
  sys(SYS_rt_sigprocmask, SIG_BLOCK, (long)&mask, 0, sizeof mask);
  for (;;) {
    long s = sys(SYS_rt_sigtimedwait, (long)&mask, 0, 0, sizeof mask);
    if (s == SIGINT || s == SIGTERM) sys(SYS_exit_group, 0, 0, 0, 0);
    while (sys(SYS_wait4, -1, 0, WNOHANG, 0) > 0) {
    }
  }
}

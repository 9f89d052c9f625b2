/* The first process of a pod for runtimes that want one: waits for ever, reaps what is left to it, ends cleanly when asked. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
	sigset_t set;
	int sig;

	/* Blocked and waited for, not handled: a signal that comes before sigwait is kept, also for process 1. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return 1;
	for (;;) {
		if (sigwait(&set, &sig))
			return 2;
		if (sig != SIGCHLD)
			return 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

/* /bin/sh of the image that poses as busybox 1.37. The shell of the busybox that is built here (1.35) forgets variables whose names no
 * shell could use ("a-b"), that of 1.37 hands them on. A container may have such variables, so "sh -c env" has to show them. */
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
	static char *env[] = {"env", 0};
	int plain = argc == 3 && strcmp(argv[1], "-c") == 0 && strcmp(argv[2], "env") == 0;
	execv("/bin/busybox", plain ? env : argv);
	return 127;
}

/* Setuid root in its image: tells whether no_new_privs kept it from becoming root. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
	printf("Effective uid: %d\n", (int)geteuid());
	return 0;
}

/* Holds a pod's namespaces: sleeps, buries orphans, leaves on SIGTERM or SIGINT. Built static by pause.py. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal) { (void)signal; _exit(0); }
static void bury(int signal) { (void)signal; while (waitpid(-1, NULL, WNOHANG) > 0) { } }

int main(void)
{
    struct sigaction end = { .sa_handler = leave }, child = { .sa_handler = bury, .sa_flags = SA_NOCLDSTOP };
    if (sigaction(SIGINT, &end, NULL) || sigaction(SIGTERM, &end, NULL) || sigaction(SIGCHLD, &child, NULL))
        return 1;
    for (;;)
        pause();
}

/* The first process of a pod: holds its namespaces until it gets a signal to end, and reaps processes that lost their parent. */
#include <signal.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) {
  (void)signal;
  _exit(0);
}

static void reap(int signal) {
  (void)signal;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction ended = {.sa_handler = end}, child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
  if (sigaction(SIGINT, &ended, NULL) || sigaction(SIGTERM, &ended, NULL) || sigaction(SIGCHLD, &child, NULL)) return 1;
  for (;;) pause();
}

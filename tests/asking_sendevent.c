/* A `sendevent` that asks the AutoSys of tests/autosys_stand_in.py when to send. Its own name ends with a dash and the port. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *text) {
    fprintf(stderr, "CAUAJM_E_10527 %s\n", text);
    return 1;
}

/* Reads one line of so many characters, with its end. */
static int is_said(int server, const char *line) {
    char said[8] = "";
    size_t have = 0, all = strlen(line);
    while (have < all) {
        ssize_t got = read(server, said + have, all - have);
        if (got <= 0) return 0;
        have += (size_t)got;
    }
    return strcmp(said, line) == 0;
}

int main(int count, char **arguments) {
    const char *job = "", *status = "", *comment = "";
    for (int option; (option = getopt(count, arguments, "E:J:s:C:")) != -1;) {
        if (option == 'J') job = optarg;
        if (option == 's') status = optarg;
        if (option == 'C') comment = optarg;
    }
    char name[4096] = "", line[4096];
    if (readlink("/proc/self/exe", name, sizeof name - 1) < 0 || !strrchr(name, '-')) return fail("no port");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(strrchr(name, '-') + 1))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(server, (struct sockaddr *)&address, sizeof address)) return fail("The event server is not available.");
    int length = snprintf(line, sizeof line, "ask\t%s\t%s\t%s\n", job, status, comment);
    if (write(server, line, (size_t)length) != length || !is_said(server, "go\n")) return fail("Nothing was sent.");
    if (write(server, "event\n", 6) != 6) return fail("Nothing was sent.");
    if (!is_said(server, "ok\n")) {
        /* What becomes of the event is not known: no exit code within the time limit. */
        sleep(10);
        return fail("No answer.");
    }
    puts("CAUAJM_I_50152 Sendevent issued");
    return 0;
}

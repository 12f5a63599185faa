/* Streams 1 MiB messages between two processes for a while, through the NCCL net plugin or over loopback TCP, and
 * prints GB/s and the CPU nanoseconds per byte of both processes.
 *
 * usage: net plugin|tcp LIBRARY BUFFERS — 1 buffer stays hot in the caches, 32 rotate */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE = 1 << 20, WARM = 64, MESSAGES = 1500, DEPTH = 8, MAX_BUFFERS = 32 };

/* ncclNet_v8_t of NVIDIA/nccl, src/include/plugin/net/net_v8.h */
struct net_v8 {
    const char *name;
    int (*init)(void *), (*devices)(int *), (*properties)(int, void *), (*listen)(int, void *, void **);
    int (*connect)(int, void *, void **, void **), (*accept)(void *, void **, void **);
    int (*reg)(void *, void *, size_t, int, void **), (*reg_dma)(void), (*dereg)(void *, void *);
    int (*isend)(void *, void *, int, int, void *, void **);
    int (*irecv)(void *, int, void **, int *, int *, void **, void **);
    int (*iflush)(void), (*test)(void *, int *, int *);
    int (*close_send)(void *), (*close_recv)(void *), (*close_listen)(void *);
};

static char *buffers[MAX_BUFFERS];
static int count, sender;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void must(int fact, const char *what) {
    if (fact) return;
    fprintf(stderr, "net: %s\n", what);
    exit(1);
}

static void plugin(const char *library, const int pipes[2]) {
    void *handle = dlopen(library, RTLD_NOW), *comm = NULL, *listener = NULL, *memory[MAX_BUFFERS], *requests[DEPTH];
    must(handle != NULL, "dlopen");
    struct net_v8 *net = dlsym(handle, "ncclNetPlugin_v8");
    char address[128] = {0};
    must(net && net->init(NULL) == 0, "init");
    if (sender) {
        must(read(pipes[0], address, 128) == 128, "handle");
        while (!comm) must(net->connect(0, address, &comm, NULL) == 0, "connect");
    } else {
        must(net->listen(0, address, &listener) == 0, "listen");
        must(write(pipes[1], address, 128) == 128, "handle");
        while (!comm) must(net->accept(listener, &comm, NULL) == 0, "accept");
    }
    for (int i = 0; i < count; i++) must(net->reg(comm, buffers[i], MESSAGE, 1, &memory[i]) == 0, "reg");
    double begin = 0, used = 0;
    for (int started = 0, ended = 0; ended < MESSAGES + WARM;) {
        while (started < MESSAGES + WARM && started - ended < DEPTH) {
            int i = started % count, size = MESSAGE, tag = 0;
            void *data = buffers[i], **request = &requests[started % DEPTH];
            must((sender ? net->isend(comm, data, size, tag, memory[i], request)
                         : net->irecv(comm, 1, &data, &size, &tag, &memory[i], request)) == 0, "post");
            started++;
        }
        int done = 0, size;
        must(net->test(requests[ended % DEPTH], &done, &size) == 0, "test");
        ended += done;
        if (!done) sched_yield(); /* as NCCL's proxy does when no request progressed (src/proxy.cc) */
        if (done && ended == WARM) begin = now(), used = cpu();
    }
    double seconds = now() - begin;
    used = cpu() - used;
    if (sender) must(write(pipes[1], &used, sizeof used) == sizeof used, "report");
    if (!sender) {
        double other;
        must(read(pipes[0], &other, sizeof other) == sizeof other, "report");
        printf("%.4f %.4f\n", MESSAGES * (double)MESSAGE / seconds / 1e9, (used + other) * 1e9 / MESSAGES / MESSAGE);
    }
    net->close_send(comm);
}

static void tcp(const int pipes[2]) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (sender) {
        must(read(pipes[0], &at.sin_port, 2) == 2, "port");
        must(connect(fd, (struct sockaddr *)&at, sizeof at) == 0, "connect");
    } else {
        must(bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 1) == 0, "listen");
        must(getsockname(fd, (struct sockaddr *)&at, &len) == 0, "port");
        must(write(pipes[1], &at.sin_port, 2) == 2, "port");
        fd = accept(fd, NULL, NULL);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    double begin = 0, used = 0;
    for (int m = 0; m < MESSAGES + WARM; m++) {
        if (m == WARM) begin = now(), used = cpu();
        for (size_t done = 0; done < MESSAGE;) {
            char *data = buffers[m % count] + done;
            ssize_t got = sender ? send(fd, data, MESSAGE - done, 0) : recv(fd, data, MESSAGE - done, 0);
            must(got > 0, "stream");
            done += got;
        }
    }
    double seconds = now() - begin;
    used = cpu() - used;
    if (sender) must(write(pipes[1], &used, sizeof used) == sizeof used, "report");
    if (!sender) {
        double other;
        must(read(pipes[0], &other, sizeof other) == sizeof other, "report");
        printf("%.4f %.4f\n", MESSAGES * (double)MESSAGE / seconds / 1e9, (used + other) * 1e9 / MESSAGES / MESSAGE);
    }
}

int main(int argc, char **argv) {
    int there[2], back[2];
    must(argc == 4, "usage: net plugin|tcp LIBRARY BUFFERS");
    count = atoi(argv[3]);
    must(count >= 1 && count <= MAX_BUFFERS && pipe(there) == 0 && pipe(back) == 0, "setup");
    sender = fork() == 0;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sender, &set);
    sched_setaffinity(0, sizeof set, &set);
    for (int i = 0; i < count; i++) {
        buffers[i] = aligned_alloc(1 << 21, 1 << 21);
        memset(buffers[i], i + 1, MESSAGE);
    }
    int pipes[2] = {sender ? there[0] : back[0], sender ? back[1] : there[1]};
    if (strcmp(argv[1], "plugin") == 0) plugin(argv[2], pipes);
    else tcp(pipes);
    if (!sender) wait(NULL);
    return 0;
}

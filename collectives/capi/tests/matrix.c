/* Every collective with every type and operator, blocking and not, in place and not, against a scalar oracle. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migshare.h"

enum { RANKS = 4, TYPES = 12, OPS = 5, LARGEST = 3000, WIDEST = 8 };
enum kind { ALL_REDUCE, REDUCE, REDUCE_SCATTER, ALL_GATHER, GATHER, SCATTER, ALL_TO_ALL, BROADCAST, KINDS };

static const int sizes[TYPES] = {2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8};
static unsigned char send[RANKS * LARGEST * WIDEST], recv[RANKS * LARGEST * WIDEST], want[RANKS * LARGEST * WIDEST];
static migshare_comm *comm;
static int me;

/* Ones and twos: their sums, products and quarters are exact in every type. */
static int value(int rank, size_t i) { return 1 + (int)((i / 3 + (size_t)rank * 7 + i * (size_t)rank) % 2); }

static void encode(int type, double x, unsigned char *to) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint16_t half = (uint16_t)(f == 0 ? 0 : ((bits >> 23) - 112) << 10 | ((bits >> 13) & 0x3ff)), brain = (uint16_t)(bits >> 16);
    int64_t whole = (int64_t)x; /* rounds toward zero; little-endian, so its first bytes are the narrower ones */
    const void *from = type == 0 ? (void *)&half : type == 1 ? (void *)&brain : type == 2 ? (void *)&f : type == 3 ? (void *)&x : (void *)&whole;
    memcpy(to, from, (size_t)sizes[type]);
}

static double combined(int op, size_t i) {
    double result = value(0, i);
    for (int rank = 1; rank < RANKS; rank++) {
        int v = value(rank, i);
        if (op == MIGSHARE_SUM || op == MIGSHARE_AVERAGE) result += v;
        if (op == MIGSHARE_PRODUCT) result *= v;
        if (op == MIGSHARE_MIN && v < result) result = v;
        if (op == MIGSHARE_MAX && v > result) result = v;
    }
    return op == MIGSHARE_AVERAGE ? result / RANKS : result;
}

static int root_of(size_t count) { return (int)(count % RANKS); }

/* Elements that a rank has before, and that it gets. */
static size_t inputs(enum kind k, size_t n) {
    return k == REDUCE_SCATTER || k == ALL_TO_ALL || k == SCATTER ? n * RANKS : n;
}
static size_t outputs(enum kind k, size_t n) {
    if ((k == REDUCE || k == GATHER) && me != root_of(n)) return 0;
    return k == ALL_GATHER || k == GATHER || k == ALL_TO_ALL ? n * RANKS : n;
}

static double oracle(enum kind k, int op, size_t n, size_t i) {
    size_t mine = (size_t)me * n, block = i / n;
    switch (k) {
    case ALL_REDUCE: case REDUCE: return combined(op, i);
    case REDUCE_SCATTER: return combined(op, mine + i);
    case ALL_GATHER: case GATHER: return value((int)block, i % n);
    case SCATTER: return value(root_of(n), mine + i);
    case ALL_TO_ALL: return value((int)block, mine + i % n);
    default: return value(root_of(n), i);
    }
}

static int32_t call(enum kind k, const void *from, void *to, size_t n, int type, int op, migshare_request *r) {
    int root = root_of(n);
    switch (k) {
    case ALL_REDUCE: return r ? migshare_iall_reduce(comm, from, to, n, type, op, r) : migshare_all_reduce(comm, from, to, n, type, op);
    case REDUCE: return r ? migshare_ireduce(comm, from, to, n, type, op, root, r) : migshare_reduce(comm, from, to, n, type, op, root);
    case REDUCE_SCATTER: return r ? migshare_ireduce_scatter(comm, from, to, n, type, op, r) : migshare_reduce_scatter(comm, from, to, n, type, op);
    case ALL_GATHER: return r ? migshare_iall_gather(comm, from, to, n, type, r) : migshare_all_gather(comm, from, to, n, type);
    case GATHER: return r ? migshare_igather(comm, from, to, n, type, root, r) : migshare_gather(comm, from, to, n, type, root);
    case SCATTER: return r ? migshare_iscatter(comm, from, to, n, type, root, r) : migshare_scatter(comm, from, to, n, type, root);
    case ALL_TO_ALL: return r ? migshare_iall_to_all(comm, from, to, n, type, r) : migshare_all_to_all(comm, from, to, n, type);
    default: return r ? migshare_ibroadcast(comm, to, n, type, root, r) : migshare_broadcast(comm, to, n, type, root);
    }
}

static void check(enum kind k, int type, int op, size_t n, int in_place, int waiting) {
    size_t width = (size_t)sizes[type], own = (size_t)me * n * width;
    unsigned char *from = send, *to = recv;
    int at_root = me == root_of(n);
    for (size_t i = 0; i < outputs(k, n); i++) encode(type, oracle(k, op, n, i), want + i * width);
    memset(recv, 0x5a, sizeof recv);
    if (in_place) {
        to = send;
        if (k == ALL_GATHER || (k == GATHER && at_root)) from = send + own;
        if (k == REDUCE_SCATTER || (k == SCATTER && at_root)) to = send + own;
    }
    if (k == BROADCAST) from = to;
    for (size_t i = 0; i < inputs(k, n); i++) encode(type, value(me, i), from + i * width);
    if (k == SCATTER && in_place && !at_root) to = recv;
    migshare_request request = 0;
    int32_t code = call(k, from, to, n, type, op, waiting ? &request : NULL);
    if (code == MIGSHARE_OK && waiting == 1) code = migshare_wait(comm, request, NULL);
    if (code == MIGSHARE_OK && waiting == 2)
        do code = migshare_test(comm, request, NULL);
        while (code == MIGSHARE_PENDING);
    if (code != MIGSHARE_OK || memcmp(to, want, outputs(k, n) * width) != 0) {
        fprintf(stderr, "rank %d: kind %d type %d op %d count %zu in place %d waiting %d: %s %s\n", me, k, type, op, n, in_place,
                waiting, migshare_status_name(code), code == MIGSHARE_OK ? "wrong result" : migshare_last_error());
        exit(1);
    }
}

static int run(const migshare_segment *segment, int rank) {
    static const size_t counts[] = {1, 33, LARGEST};
    me = rank;
    if (migshare_comm_join(segment, rank, 120000, &comm) != MIGSHARE_OK) return 1;
    for (int k = 0; k < KINDS; k++)
        for (int type = 0; type < TYPES; type++)
            for (int op = 0; op < (k <= REDUCE_SCATTER ? OPS : 1); op++)
                for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
                    for (int way = 0; way < (counts[c] == LARGEST ? 2 : 6); way++) check((enum kind)k, type, op, counts[c], way % 2, way / 2);
    return migshare_barrier(comm) != MIGSHARE_OK || migshare_comm_free(comm) != MIGSHARE_OK;
}

int main(void) {
    migshare_segment *segment;
    if (migshare_segment_create(0, RANKS, &segment) != MIGSHARE_OK) return 1;
    for (int rank = 0; rank < RANKS; rank++)
        if (fork() == 0) exit(run(segment, rank));
    int failed = 0, status;
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}

/* One rank of one peer: reads commands from a pipe of its own, so that idle peers use no CPU, runs them and,
 * on rank 0, answers with nanoseconds per call, one number per sample.
 *
 *   command   OPERATION COUNT CALLS SAMPLES     answer   ns ns ns …    or "none" when the peer cannot do it
 *
 * With `fresh_` before the operation, each rank writes its source before each call.
 *
 * usage: worker FOLDER NAME [arguments of the peer] — pipes are FOLDER/NAME.RANK and FOLDER/NAME.out
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "worker.h"

enum { BUFFER_BYTES = 64 << 20 };
static const char *names[OPERATIONS] = {"all_reduce", "broadcast", "reduce", "reduce_scatter", "all_gather",
                                        "gather", "scatter", "all_to_all", "barrier", "ping_pong", "all_reduce_segment", "bound"};
static float *buffers[2], *segment_buffers[2];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void pin(int rank) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(rank % (int)sysconf(_SC_NPROCESSORS_ONLN), &set);
    sched_setaffinity(0, sizeof set, &set);
}

__attribute__((target("avx512f"))) static void copy512(char *to, const char *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64)
        _mm512_stream_si512((__m512i *)(to + i), _mm512_loadu_si512(from + i));
    _mm_sfence();
}

static void copy128(char *to, const char *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 16)
        _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(from + i)));
    _mm_sfence();
}

static int run(enum operation op, size_t count) {
    if (op == BOUND) {
        (__builtin_cpu_supports("avx512f") ? copy512 : copy128)((char *)buffers[1], (char *)buffers[0], count * 4);
        return 1;
    }
    if (op == BARRIER) {
        peer_barrier();
        return 1;
    }
    float **use = op == ALL_REDUCE_SEGMENT ? segment_buffers : buffers;
    return use[0] && peer_run(op, use[0], use[1], count);
}

/* Runs an operation until all is warm. Whether the peer has it; where not, that is its figure. */
static int warm(enum operation op, size_t count, FILE *out) {
    int able = 1;
    for (int i = 0; i < 2 && able; i++) able = run(op, count);
    if (!able && out) fprintf(out, "none\n");
    return able;
}

/* Writes the sources of an operation anew, as a program does between two calls and no benchmark of MPI. */
static void write_sources(enum operation op, size_t count, int rank, int size) {
    static unsigned round;
    int rooted = op == BROADCAST || op == SCATTER;
    int blocks = op == SCATTER || op == ALL_TO_ALL || op == REDUCE_SCATTER ? size : 1;
    float *source = buffers[op == BROADCAST], value = 1 + (round++ & 1);
    if (rooted && rank != 0) return;
    for (size_t i = 0; i < count * blocks; i++) source[i] = value;
}

/* Samples of single calls on fresh sources, each between barriers; the time of writing is not in them. */
static void sample_fresh(enum operation op, size_t count, int calls, int samples, int rank, int size, FILE *out) {
    if (!warm(op, count, out)) return;
    for (int s = 0; s < samples; s++) {
        double taken = 0;
        for (int i = 0; i < calls; i++) {
            write_sources(op, count, rank, size);
            peer_barrier();
            double begin = now();
            run(op, count);
            peer_barrier();
            taken += now() - begin;
        }
        if (out) fprintf(out, "%.1f ", taken / calls);
    }
    if (out) fprintf(out, "\n");
}

static void sample(enum operation op, size_t count, int calls, int samples, FILE *out) {
    /* Calls with a root, and the bound, end when all ranks are done. */
    int closing = op != ALL_REDUCE && op != ALL_GATHER && op != ALL_TO_ALL && op != REDUCE_SCATTER &&
                  op != ALL_REDUCE_SEGMENT && op != BARRIER && op != PING_PONG;
    if (!warm(op, count, out)) return;
    for (int s = 0; s < samples; s++) {
        peer_barrier();
        double begin = now();
        for (int i = 0; i < calls; i++) run(op, count);
        if (closing) peer_barrier();
        if (out) fprintf(out, "%.1f ", (now() - begin) / calls);
    }
    if (out) fprintf(out, "\n");
}

int main(int argc, char **argv) {
    int rank, size;
    char path[4096], name[64];
    if (argc < 3) return 2;
    const char *early = getenv("OMPI_COMM_WORLD_RANK");
    if (!early) early = getenv("PMI_RANK");
    if (!early) early = getenv("MIGSHARE_RANK");
    if (early) pin(atoi(early));
    peer_start(argc, argv, &rank, &size);
    pin(rank);
    for (int i = 0; i < 2; i++) {
        buffers[i] = aligned_alloc(1 << 21, BUFFER_BYTES);
        segment_buffers[i] = peer_alloc(4 << 20);
        for (size_t j = 0; j < BUFFER_BYTES / 4; j++) buffers[i][j] = 1;
        for (size_t j = 0; segment_buffers[i] && j < (4 << 20) / 4; j++) segment_buffers[i][j] = 1;
    }
    snprintf(path, sizeof path, "%s/%s.%d", argv[1], argv[2], rank);
    FILE *in = fopen(path, "r");
    snprintf(path, sizeof path, "%s/%s.out", argv[1], argv[2]);
    FILE *out = rank == 0 ? fopen(path, "w") : NULL;
    if (!in || (rank == 0 && !out)) return 3;
    unsigned long count;
    int calls, samples;
    while (fscanf(in, "%63s %lu %d %d", name, &count, &calls, &samples) == 4) {
        int fresh = strncmp(name, "fresh_", 6) == 0;
        for (int op = 0; op < OPERATIONS; op++) {
            if (strcmp(name + 6 * fresh, names[op]) != 0) continue;
            if (fresh)
                sample_fresh(op, count, calls, samples, rank, size, out);
            else
                sample(op, count, calls, samples, out);
        }
        if (out) fflush(out);
    }
    peer_stop();
    return 0;
}

/* Two to four ranks in C, as a user would write them: forks, joins, calls everything once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { RANKS = 4, COUNT = 5000 };

static void collectives(migshare_comm *comm, int rank) {
    static float one[COUNT], all[COUNT * RANKS], out[COUNT * RANKS];
    for (int i = 0; i < COUNT; i++) one[i] = (float)(rank + 1);
    CHECK(migshare_all_reduce(comm, one, out, COUNT, MIGSHARE_F32, MIGSHARE_SUM));
    REQUIRE(out[0] == 10 && out[COUNT - 1] == 10);
    CHECK(migshare_reduce(comm, one, out, COUNT, MIGSHARE_F32, MIGSHARE_MAX, 2));
    REQUIRE(rank != 2 || out[7] == 4);
    CHECK(migshare_all_gather(comm, one, all, COUNT, MIGSHARE_F32));
    REQUIRE(all[0] == 1 && all[COUNT] == 2 && all[COUNT * RANKS - 1] == 4);
    CHECK(migshare_reduce_scatter(comm, all, out, COUNT, MIGSHARE_F32, MIGSHARE_AVERAGE));
    REQUIRE(out[0] == (float)(rank + 1));
    CHECK(migshare_gather(comm, one, out, COUNT, MIGSHARE_F32, 0));
    REQUIRE(rank != 0 || out[COUNT * 3] == 4);
    CHECK(migshare_scatter(comm, all, out, COUNT, MIGSHARE_F32, 1));
    REQUIRE(out[5] == (float)(rank + 1));
    CHECK(migshare_all_to_all(comm, all, out, COUNT, MIGSHARE_F32));
    REQUIRE(out[0] == (float)(rank + 1) && out[COUNT * 3] == (float)(rank + 1));
    CHECK(migshare_broadcast(comm, one, COUNT, MIGSHARE_F32, 3));
    REQUIRE(one[9] == 4);
    CHECK(migshare_barrier(comm));
}

static void messages(migshare_comm *comm, int rank) {
    char out[200], in[300];
    size_t got = 0;
    migshare_request send, receive;
    memset(out, 'a' + rank, sizeof out);
    CHECK(migshare_isend(comm, out, sizeof out, rank ^ 1, 5, &send));
    CHECK(migshare_irecv(comm, in, sizeof in, rank ^ 1, 5, &receive));
    CHECK(migshare_wait(comm, receive, &got));
    REQUIRE(got == 200 && in[199] == 'a' + (rank ^ 1));
    while (migshare_test(comm, send, NULL) == MIGSHARE_PENDING) {
    }
    REQUIRE(migshare_wait(comm, send, NULL) == MIGSHARE_INVALID);
    double sum = rank;
    migshare_request request;
    CHECK(migshare_iall_reduce(comm, &sum, &sum, 1, MIGSHARE_F64, MIGSHARE_SUM, &request));
    CHECK(migshare_wait(comm, request, NULL));
    REQUIRE(sum == 6);
}

static void groups(migshare_comm *comm, int rank) {
    migshare_comm *half;
    migshare_segment *carrier;
    int32_t size = 0;
    CHECK(migshare_comm_split(comm, rank % 2, rank, &half));
    CHECK(migshare_comm_size(half, &size));
    REQUIRE(size == 2);
    int64_t *shared;
    CHECK(migshare_alloc(half, 1 << 20, (void **)&shared));
    for (int i = 0; i < (1 << 17); i++) shared[i] = i;
    CHECK(migshare_all_reduce(half, shared, shared, 1 << 17, MIGSHARE_I64, MIGSHARE_SUM));
    REQUIRE(shared[1000] == 2000);
    CHECK(migshare_free(half, shared));
    REQUIRE(migshare_free(half, shared) == MIGSHARE_INVALID);
    CHECK(migshare_alloc(half, 100, (void **)&shared));
    CHECK(migshare_comm_segment(half, &carrier));
    CHECK(migshare_barrier(comm)); /* nobody is in an operation of `half` any more */
    CHECK(migshare_comm_abort(half));
    REQUIRE(migshare_barrier(half) == MIGSHARE_PEER_LOST);
    CHECK(migshare_comm_free(half));
    shared[0] = 1; /* mapped for as long as somebody holds the segment */
    CHECK(migshare_segment_free(carrier));
    CHECK(migshare_comm_split(comm, -1, 0, &half));
    REQUIRE(half == NULL);
}

static void bad_arguments(migshare_comm *comm) {
    int x = 0;
    REQUIRE(migshare_barrier(NULL) == MIGSHARE_INVALID);
    REQUIRE(migshare_all_reduce(comm, &x, &x, 1, 12, MIGSHARE_SUM) == MIGSHARE_INVALID);
    REQUIRE(migshare_all_reduce(comm, &x, &x, 1, MIGSHARE_I32, 5) == MIGSHARE_INVALID);
    REQUIRE(migshare_all_reduce(comm, NULL, &x, 1, MIGSHARE_I32, MIGSHARE_SUM) == MIGSHARE_INVALID);
    REQUIRE(migshare_broadcast(comm, &x, 1, MIGSHARE_I32, -1) == MIGSHARE_INVALID);
    REQUIRE(migshare_broadcast(comm, &x, (size_t)-1, MIGSHARE_I32, 0) == MIGSHARE_INVALID);
    REQUIRE(migshare_isend(comm, &x, 4, 1000, 0, NULL) == MIGSHARE_INVALID);
    REQUIRE(migshare_wait(comm, 12345, NULL) == MIGSHARE_INVALID);
    REQUIRE(migshare_comm_set_timeout(comm, 0) == MIGSHARE_INVALID);
    REQUIRE(strlen(migshare_last_error()) > 0);
    REQUIRE(migshare_segment_from_fd(-1, 2, NULL) == MIGSHARE_INVALID);
    REQUIRE(strcmp(migshare_status_name(-5), "unknown status") == 0);
}

static int run(const migshare_segment *segment, int rank) {
    migshare_comm *comm;
    CHECK(migshare_comm_join(segment, rank, 60000, &comm));
    collectives(comm, rank);
    messages(comm, rank);
    groups(comm, rank);
    bad_arguments(comm);
    CHECK(migshare_barrier(comm));
    CHECK(migshare_comm_free(comm));
    return 0;
}

int main(void) {
    migshare_segment *segment;
    REQUIRE(migshare_abi_version() == MIGSHARE_ABI_VERSION);
    CHECK(migshare_segment_create(0, RANKS, &segment));
    REQUIRE(migshare_segment_fd(segment) >= 0);
    CHECK(migshare_segment_claim(segment));
    REQUIRE(migshare_segment_claim(NULL) == MIGSHARE_INVALID);
    for (int rank = 0; rank < RANKS; rank++)
        if (fork() == 0) exit(run(segment, rank));
    int failed = 0, status;
    while (wait(&status) > 0) failed |= status;
    CHECK(migshare_segment_free(segment));
    return failed != 0;
}

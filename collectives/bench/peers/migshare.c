/* migshare as a peer, through its C ABI. */
#include <stdio.h>
#include <stdlib.h>

#include "migshare.h"
#include "worker.h"

static migshare_comm *comm;
static int32_t own_rank;

static void check(int32_t status) {
    if (status == MIGSHARE_OK) return;
    fprintf(stderr, "migshare: %s: %s\n", migshare_status_name(status), migshare_last_error());
    exit(1);
}

void peer_start(int argc, char **argv, int *rank, int *size) {
    (void)argc, (void)argv;
    check(migshare_comm_from_env(&comm));
    check(migshare_comm_rank(comm, &own_rank));
    *rank = own_rank;
    check(migshare_comm_size(comm, size));
}

void peer_barrier(void) { check(migshare_barrier(comm)); }

static void ping_pong(const float *send, float *recv, size_t bytes) {
    if (own_rank == 0) check(migshare_send(comm, send, bytes, 1, 0));
    check(migshare_recv(comm, recv, bytes, 1 - own_rank, 0, NULL));
    if (own_rank == 1) check(migshare_send(comm, send, bytes, 0, 0));
}

int peer_run(enum operation op, const float *send, float *recv, size_t n) {
    switch (op) {
    case ALL_REDUCE:
    case ALL_REDUCE_SEGMENT: check(migshare_all_reduce(comm, send, recv, n, MIGSHARE_F32, MIGSHARE_SUM)); return 1;
    case BROADCAST: check(migshare_broadcast(comm, recv, n, MIGSHARE_F32, 0)); return 1;
    case REDUCE: check(migshare_reduce(comm, send, recv, n, MIGSHARE_F32, MIGSHARE_SUM, 0)); return 1;
    case REDUCE_SCATTER: check(migshare_reduce_scatter(comm, send, recv, n, MIGSHARE_F32, MIGSHARE_SUM)); return 1;
    case ALL_GATHER: check(migshare_all_gather(comm, send, recv, n, MIGSHARE_F32)); return 1;
    case GATHER: check(migshare_gather(comm, send, recv, n, MIGSHARE_F32, 0)); return 1;
    case SCATTER: check(migshare_scatter(comm, send, recv, n, MIGSHARE_F32, 0)); return 1;
    case ALL_TO_ALL: check(migshare_all_to_all(comm, send, recv, n, MIGSHARE_F32)); return 1;
    case PING_PONG: ping_pong(send, recv, n * sizeof *send); return 1;
    default: return 0;
    }
}

void *peer_alloc(size_t bytes) {
    void *buffer;
    check(migshare_alloc(comm, bytes, &buffer));
    return buffer;
}

void peer_stop(void) { check(migshare_comm_free(comm)); }

/* Any MPI as a peer. */
#include <mpi.h>

#include "worker.h"

static int own_rank;

void peer_start(int argc, char **argv, int *rank, int *size) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &own_rank);
    *rank = own_rank;
    MPI_Comm_size(MPI_COMM_WORLD, size);
}

void peer_barrier(void) { MPI_Barrier(MPI_COMM_WORLD); }

static int ping_pong(const float *send, float *recv, int n) {
    if (own_rank == 0) MPI_Send(send, n, MPI_FLOAT, 1, 0, MPI_COMM_WORLD);
    MPI_Recv(recv, n, MPI_FLOAT, 1 - own_rank, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (own_rank == 1) MPI_Send(send, n, MPI_FLOAT, 0, 0, MPI_COMM_WORLD);
    return 1;
}

int peer_run(enum operation op, const float *send, float *recv, size_t count) {
    int n = (int)count;
    MPI_Comm world = MPI_COMM_WORLD;
    switch (op) {
    case ALL_REDUCE: return !MPI_Allreduce(send, recv, n, MPI_FLOAT, MPI_SUM, world);
    case BROADCAST: return !MPI_Bcast(recv, n, MPI_FLOAT, 0, world);
    case REDUCE: return !MPI_Reduce(send, recv, n, MPI_FLOAT, MPI_SUM, 0, world);
    case REDUCE_SCATTER: return !MPI_Reduce_scatter_block(send, recv, n, MPI_FLOAT, MPI_SUM, world);
    case ALL_GATHER: return !MPI_Allgather(send, n, MPI_FLOAT, recv, n, MPI_FLOAT, world);
    case GATHER: return !MPI_Gather(send, n, MPI_FLOAT, recv, n, MPI_FLOAT, 0, world);
    case SCATTER: return !MPI_Scatter(send, n, MPI_FLOAT, recv, n, MPI_FLOAT, 0, world);
    case ALL_TO_ALL: return !MPI_Alltoall(send, n, MPI_FLOAT, recv, n, MPI_FLOAT, world);
    case PING_PONG: return ping_pong(send, recv, n);
    default: return 0;
    }
}

void *peer_alloc(size_t bytes) {
    (void)bytes;
    return 0;
}

void peer_stop(void) { MPI_Finalize(); }

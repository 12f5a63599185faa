/* What a peer of the benchmark has to offer. Element type is f32, the reduction is a sum. */
#ifndef WORKER_H
#define WORKER_H
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum operation {
    ALL_REDUCE, BROADCAST, REDUCE, REDUCE_SCATTER, ALL_GATHER, GATHER, SCATTER, ALL_TO_ALL, BARRIER,
    PING_PONG,          /* between two ranks: a message there and one back */
    ALL_REDUCE_SEGMENT, /* all-reduce with buffers of peer_alloc */
    BOUND,              /* non-temporal copy from source to target, on all ranks at once */
    OPERATIONS
};

/* Starts the peer's runtime; rank and size of this process. */
void peer_start(int argc, char **argv, int *rank, int *size);
void peer_barrier(void);
/* Runs one operation on `count` elements per rank; 0 if the peer has no such operation. */
int peer_run(enum operation op, const float *send, float *recv, size_t count);
/* Memory for ALL_REDUCE_SEGMENT, or NULL. */
void *peer_alloc(size_t bytes);
void peer_stop(void);

#ifdef __cplusplus
}
#endif
#endif

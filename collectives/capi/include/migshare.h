/* migshare.h — collectives between the processes of one job step on one node, over host shared memory.
 *
 * All functions return a status. MIGSHARE_INVALID, _TRUNCATED, _EXHAUSTED and _BUSY leave the communicator as it
 * was; any other failure ends it for all its members: later calls return MIGSHARE_POISONED, the contents of
 * the buffers of unfinished calls are undefined, and buffers inside the segment can only be freed.
 * migshare_last_error() has the text.
 *
 * After a fork the communicator is the parent's: in the child every call but migshare_comm_free, which then frees the copy only,
 * returns MIGSHARE_INVALID. Segments may be used on both sides.
 *
 * A communicator is used by one thread at a time (MIGSHARE_BUSY otherwise). All members make the same
 * collective calls in the same order; results are bit-equal on all ranks. Counts are elements per rank.
 *
 * In place: all-reduce, reduce, all-to-all: send == recv; reduce-scatter, scatter: recv == send + rank*count;
 * all-gather, gather: send == recv + rank*count (in elements). Buffers must not overlap otherwise. A buffer of no elements may
 * be NULL; the call takes part nevertheless.
 */
#ifndef MIGSHARE_H
#define MIGSHARE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every incompatible change. */
#define MIGSHARE_ABI_VERSION 1

typedef enum migshare_status {
    MIGSHARE_OK = 0,
    MIGSHARE_INVALID = 1,    /* an argument is out of range; nothing happened */
    MIGSHARE_PEER_LOST = 2,  /* a peer process is gone, or has freed the communicator */
    MIGSHARE_TIMEOUT = 3,    /* a peer did not answer within the timeout */
    MIGSHARE_CORRUPT = 4,    /* control words hold values that no correct rank writes */
    MIGSHARE_MISMATCH = 5,   /* ranks called different operations, or with different arguments */
    MIGSHARE_POISONED = 6,   /* an earlier failure ended this communicator */
    MIGSHARE_TRUNCATED = 7,  /* a message is longer than the buffer it should go to */
    MIGSHARE_EXHAUSTED = 8,  /* out of segment memory or communicator slots */
    MIGSHARE_SYSTEM = 9,     /* the operating system or the agent said no */
    MIGSHARE_PENDING = 10,   /* not complete yet: migshare_test, migshare_wait_for, set_patience */
    MIGSHARE_BUSY = 11,      /* another thread is in this communicator */
    MIGSHARE_INTERNAL = 12   /* a defect in the library was caught */
} migshare_status;

typedef enum migshare_type {
    MIGSHARE_F16 = 0, MIGSHARE_BF16 = 1, MIGSHARE_F32 = 2, MIGSHARE_F64 = 3,
    MIGSHARE_I8 = 4, MIGSHARE_I16 = 5, MIGSHARE_I32 = 6, MIGSHARE_I64 = 7,
    MIGSHARE_U8 = 8, MIGSHARE_U16 = 9, MIGSHARE_U32 = 10, MIGSHARE_U64 = 11
} migshare_type;

/* Integers wrap; an integer average rounds toward zero. */
typedef enum migshare_op {
    MIGSHARE_SUM = 0, MIGSHARE_PRODUCT = 1, MIGSHARE_MIN = 2, MIGSHARE_MAX = 3, MIGSHARE_AVERAGE = 4
} migshare_op;

typedef struct migshare_segment migshare_segment;
typedef struct migshare_comm migshare_comm;
typedef uint64_t migshare_request;

int32_t migshare_abi_version(void);
const char *migshare_status_name(int32_t status);
/* The text of this thread's last failure; valid until the thread's next call. */
const char *migshare_last_error(void);

/* Segments. `bytes` 0 means a good default; memory is taken where it is touched only. */
int32_t migshare_segment_create(uint64_t bytes, int32_t ranks, migshare_segment **segment);
/* Takes over nothing: the descriptor is duplicated. It must be sealed against shrinking and growing. */
int32_t migshare_segment_from_fd(int fd, int32_t ranks, migshare_segment **segment);
int32_t migshare_segment_from_agent(const char *socket, int32_t ranks, migshare_segment **segment);
/* From MIGSHARE_SEGMENT_FD or MIGSHARE_SEGMENT_SOCKET. */
int32_t migshare_segment_from_env(int32_t ranks, migshare_segment **segment);
/* For programs that number their ranks themselves: MIGSHARE_EXHAUSTED where another process has the segment open by
 * _from_agent or _from_env, so that two programs in one step do not meet in it. Until this process and all that open it later
 * have freed it, the others are refused. */
int32_t migshare_segment_claim(const migshare_segment *segment);
/* Named segments need no agent and no common parent, but any process of the user can damage them. The
 * creator's migshare_segment_free removes the name. */
int32_t migshare_segment_create_named(const char *name, uint64_t bytes, int32_t ranks, migshare_segment **segment);
int32_t migshare_segment_open_named(const char *name, int32_t ranks, migshare_segment **segment);
/* The descriptor to hand to other processes; -1 for a named segment. Belongs to the segment. */
int migshare_segment_fd(const migshare_segment *segment);
/* May be called while communicators still use the memory. */
int32_t migshare_segment_free(migshare_segment *segment);

/* Communicators. The segment as in migshare_segment_from_env; rank and size from MIGSHARE_RANK and MIGSHARE_SIZE, or, where these
 * are not set or say that the task is alone on its node, from the variables of torchrun, Open MPI's, MPICH's or Intel MPI's mpirun. */
int32_t migshare_comm_from_env(migshare_comm **comm);
/* Returns when all ranks have joined. `timeout_ms` 0 means MIGSHARE_TIMEOUT_MS or 30 seconds. */
int32_t migshare_comm_join(const migshare_segment *segment, int32_t rank, uint64_t timeout_ms, migshare_comm **comm);
/* color < 0: no member of any new communicator, *result is NULL. */
int32_t migshare_comm_split(migshare_comm *comm, int32_t color, int32_t key, migshare_comm **result);
/* Requests that are still in flight are abandoned: where one is no receive, the communicator ends for all members. Who waits for a
 * rank that has freed it gets MIGSHARE_PEER_LOST. */
int32_t migshare_comm_free(migshare_comm *comm);
/* Ends the communicator for all members at once, as when this rank were gone: the others' calls return MIGSHARE_PEER_LOST. For a
 * rank that has failed in its own code and shall not keep the others waiting. Requests of this rank that are not done have failed,
 * and their buffers are no longer used. It is still to be freed. */
int32_t migshare_comm_abort(migshare_comm *comm);
/* The segment that carries the communicator: one more reference, for migshare_segment_free. Memory of migshare_alloc stays
 * mapped until the last one is freed. */
int32_t migshare_comm_segment(const migshare_comm *comm, migshare_segment **segment);
int32_t migshare_comm_rank(const migshare_comm *comm, int32_t *rank);
int32_t migshare_comm_size(const migshare_comm *comm, int32_t *size);
int32_t migshare_comm_set_timeout(migshare_comm *comm, uint64_t timeout_ms);

/* For callers that have something to look at while they wait, such as signals: blocking collectives that take longer than this (not
 * much longer, some 10 ms) return MIGSHARE_PENDING, and go on as a request, whose buffers stay in use: migshare_unfinished
 * is that of the calling thread's last one. 0: they never do. */
int32_t migshare_comm_set_patience(migshare_comm *comm, uint64_t limit_ms);
migshare_request migshare_unfinished(void);

/* Memory inside the segment: collectives whose buffers all lie there copy nothing. Aligned to 4096. */
int32_t migshare_alloc(migshare_comm *comm, size_t bytes, void **buffer);
int32_t migshare_free(migshare_comm *comm, void *buffer);

/* Blocking collectives. */
int32_t migshare_barrier(migshare_comm *comm);
int32_t migshare_broadcast(migshare_comm *comm, void *buffer, size_t count, int32_t type, int32_t root);
int32_t migshare_all_reduce(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                            int32_t op);
int32_t migshare_reduce(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type, int32_t op,
                        int32_t root);
int32_t migshare_reduce_scatter(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                                int32_t op);
int32_t migshare_all_gather(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type);
int32_t migshare_gather(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                        int32_t root);
int32_t migshare_scatter(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                         int32_t root);
int32_t migshare_all_to_all(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type);
int32_t migshare_send(migshare_comm *comm, const void *buffer, size_t bytes, int32_t peer, uint64_t tag);
/* `received` may be NULL. Messages between two ranks keep their order; a wrong tag is MIGSHARE_MISMATCH. */
int32_t migshare_recv(migshare_comm *comm, void *buffer, size_t bytes, int32_t peer, uint64_t tag,
                      size_t *received);

/* Non-blocking: proceed within any call on the communicator. Buffers stay in use until the request is done.
 * Collectives complete in the order of their calls. */
int32_t migshare_ibarrier(migshare_comm *comm, migshare_request *request);
int32_t migshare_ibroadcast(migshare_comm *comm, void *buffer, size_t count, int32_t type, int32_t root,
                            migshare_request *request);
int32_t migshare_iall_reduce(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                             int32_t op, migshare_request *request);
int32_t migshare_ireduce(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type, int32_t op,
                         int32_t root, migshare_request *request);
int32_t migshare_ireduce_scatter(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                                 int32_t op, migshare_request *request);
int32_t migshare_iall_gather(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                             migshare_request *request);
int32_t migshare_igather(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                         int32_t root, migshare_request *request);
int32_t migshare_iscatter(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                          int32_t root, migshare_request *request);
int32_t migshare_iall_to_all(migshare_comm *comm, const void *send, void *recv, size_t count, int32_t type,
                             migshare_request *request);
int32_t migshare_isend(migshare_comm *comm, const void *buffer, size_t bytes, int32_t peer, uint64_t tag,
                       migshare_request *request);
int32_t migshare_irecv(migshare_comm *comm, void *buffer, size_t bytes, int32_t peer, uint64_t tag,
                       migshare_request *request);
/* MIGSHARE_PENDING while in flight. A request that is done is forgotten, and belongs to its communicator: another one says
 * MIGSHARE_INVALID. `received` may be NULL. */
int32_t migshare_test(migshare_comm *comm, migshare_request request, size_t *received);
int32_t migshare_wait(migshare_comm *comm, migshare_request request, size_t *received);
/* Waits not much longer than this (some 10 ms), then MIGSHARE_PENDING: for callers that have something to look at meanwhile, such
 * as signals. */
int32_t migshare_wait_for(migshare_comm *comm, migshare_request request, uint64_t limit_ms, size_t *received);

#ifdef __cplusplus
}
#endif

#endif

/* What migshare.h says beside the results of calls: one function per sentence or two, each with two ranks of its own. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { RANKS = 2, LONG = 60000, SHORT = 200 };

/* From one rank to the other, beside the library. */
static int note[2];

static void tell(void) { REQUIRE(write(note[1], "x", 1) == 1); }

static void hear(void) {
    char byte;
    REQUIRE(read(note[0], &byte, 1) == 1);
}

static void *receive(void *comm) {
    char byte;
    int32_t code;
    /* The other thread, which asks whether this one is here, may be in the communicator itself. */
    while ((code = migshare_recv(comm, &byte, 1, 1, 0, NULL)) == MIGSHARE_BUSY) continue;
    CHECK(code);
    REQUIRE(byte == 'y');
    return NULL;
}

/* A communicator is used by one thread at a time; the text of a failure is the thread's own. */
static void a_second_thread_is_told_to_wait(migshare_comm *comm, int rank) {
    if (rank == 1) {
        hear();
        CHECK(migshare_send(comm, "y", 1, 0, 0));
    } else {
        pthread_t other;
        int32_t size;
        REQUIRE(migshare_comm_rank(NULL, &size) == MIGSHARE_INVALID);
        char before[200];
        snprintf(before, sizeof before, "%s", migshare_last_error());
        REQUIRE(pthread_create(&other, NULL, receive, comm) == 0);
        int32_t code;
        while ((code = migshare_comm_size(comm, &size)) == MIGSHARE_OK) {
            REQUIRE(strcmp(before, migshare_last_error()) == 0);
        }
        REQUIRE(code == MIGSHARE_BUSY && strstr(migshare_last_error(), "thread"));
        tell();
        REQUIRE(pthread_join(other, NULL) == 0);
    }
    CHECK(migshare_barrier(comm));
}

/* A wrong tag is a mismatch; any such failure ends the communicator for all, and later calls say so. */
static void a_wrong_tag_ends_the_communicator(migshare_comm *comm, int rank) {
    char byte = 'z';
    void *inside;
    CHECK(migshare_alloc(comm, 100, &inside));
    if (rank == 0) {
        CHECK(migshare_send(comm, &byte, 1, 1, 7));
        REQUIRE(migshare_recv(comm, &byte, 1, 1, 0, NULL) == MIGSHARE_MISMATCH);
    } else {
        REQUIRE(migshare_recv(comm, &byte, 1, 0, 8, NULL) == MIGSHARE_MISMATCH);
    }
    REQUIRE(migshare_barrier(comm) == MIGSHARE_POISONED && strstr(migshare_last_error(), "ended earlier"));
    CHECK(migshare_free(comm, inside));
}

/* A message that is too long leaves the communicator as it was, as does memory that is not to be had. */
static void small_failures_end_nothing(migshare_comm *comm, int rank) {
    char bytes[8];
    size_t got;
    void *inside;
    if (rank == 0) {
        CHECK(migshare_send(comm, "12345678", 8, 1, 0));
    } else {
        REQUIRE(migshare_recv(comm, bytes, 4, 0, 0, &got) == MIGSHARE_TRUNCATED && strstr(migshare_last_error(), "8 bytes"));
    }
    REQUIRE(migshare_alloc(comm, (size_t)1 << 40, &inside) == MIGSHARE_EXHAUSTED);
    CHECK(migshare_alloc(comm, 3, &inside));
    REQUIRE((uintptr_t)inside % 4096 == 0);
    CHECK(migshare_barrier(comm));
}

/* Every collective on no elements, for which a null pointer does. */
static int32_t on_nothing(int which, migshare_comm *comm, migshare_request *request) {
    const int32_t type = MIGSHARE_F32, op = MIGSHARE_AVERAGE;
#define EITHER(name, ...) return request ? migshare_i##name(__VA_ARGS__, request) : migshare_##name(__VA_ARGS__)
    switch (which) {
    case 0: EITHER(broadcast, comm, NULL, 0, type, 1);
    case 1: EITHER(all_reduce, comm, NULL, NULL, 0, type, op);
    case 2: EITHER(reduce, comm, NULL, NULL, 0, type, op, 0);
    case 3: EITHER(reduce_scatter, comm, NULL, NULL, 0, type, op);
    case 4: EITHER(all_gather, comm, NULL, NULL, 0, type);
    case 5: EITHER(gather, comm, NULL, NULL, 0, type, 0);
    case 6: EITHER(scatter, comm, NULL, NULL, 0, type, 1);
    default: EITHER(all_to_all, comm, NULL, NULL, 0, type);
    }
#undef EITHER
}

static void nothing_needs_no_buffer(migshare_comm *comm, int rank) {
    migshare_request request;
    char unused;
    size_t got = 1;
    for (int which = 0; which < 8; which++) {
        CHECK(on_nothing(which, comm, NULL));
        CHECK(on_nothing(which, comm, &request));
        CHECK(migshare_wait(comm, request, NULL));
    }
    /* A rank may give an address that it does not use while others give none. */
    void *own = rank ? &unused : NULL;
    CHECK(migshare_all_to_all(comm, NULL, own, 0, MIGSHARE_F32));
    CHECK(migshare_isend(comm, NULL, 0, 1 - rank, 0, &request));
    CHECK(migshare_recv(comm, NULL, 0, 1 - rank, 0, &got));
    CHECK(migshare_wait(comm, request, NULL));
    REQUIRE(got == 0);
    CHECK(migshare_barrier(comm));
}

/* Integers wrap; an integer average rounds toward zero. */
static void integers_are_those_of_c(migshare_comm *comm, int rank) {
    int8_t wrapped = 100;
    CHECK(migshare_all_reduce(comm, &wrapped, &wrapped, 1, MIGSHARE_I8, MIGSHARE_SUM));
    REQUIRE(wrapped == (int8_t)200);
    int32_t averages[2] = {rank ? -2 : -5, rank ? 2 : 5};
    CHECK(migshare_all_reduce(comm, averages, averages, 2, MIGSHARE_I32, MIGSHARE_AVERAGE));
    REQUIRE(averages[0] == -3 && averages[1] == 3);
}

/* A rank that does not answer is named within the timeout. */
static void a_silent_rank_is_named(migshare_comm *comm, int rank) {
    CHECK(migshare_comm_set_timeout(comm, SHORT));
    if (rank == 0) {
        REQUIRE(migshare_barrier(comm) == MIGSHARE_TIMEOUT && strstr(migshare_last_error(), "rank 1"));
        tell();
    } else {
        hear();
        REQUIRE(migshare_barrier(comm) == MIGSHARE_TIMEOUT && strstr(migshare_last_error(), "rank 0"));
    }
}

/* Requests that are in flight when a communicator is freed are abandoned. */
static void what_is_in_flight_is_abandoned(migshare_comm *comm, int rank) {
    static char place[1 << 20];
    migshare_request request;
    CHECK(migshare_irecv(comm, place, sizeof place, 1 - rank, 0, &request));
    REQUIRE(migshare_test(comm, request, NULL) == MIGSHARE_PENDING);
}

/* A wait with a limit ends without an answer; the request goes on. One of another communicator is none of this. */
static void a_limited_wait_ends_and_the_request_goes_on(migshare_comm *comm, int rank) {
    migshare_comm *twin;
    migshare_request request;
    char byte = 0;
    size_t got;
    CHECK(migshare_comm_split(comm, 0, rank, &twin));
    if (rank == 0) {
        CHECK(migshare_irecv(comm, &byte, 1, 1, 0, &request));
        REQUIRE(migshare_wait_for(comm, request, 1, NULL) == MIGSHARE_PENDING);
        REQUIRE(migshare_wait_for(twin, request, 1, NULL) == MIGSHARE_INVALID);
        tell();
        while (migshare_wait_for(comm, request, 1, &got) == MIGSHARE_PENDING) {
        }
        REQUIRE(byte == 'w' && got == 1 && migshare_wait_for(comm, request, 1, NULL) == MIGSHARE_INVALID);
    } else {
        hear();
        CHECK(migshare_send(comm, "w", 1, 0, 0));
    }
    CHECK(migshare_barrier(comm));
    CHECK(migshare_comm_free(twin));
}

/* With patience a blocking collective becomes a request. */
static void an_impatient_collective_becomes_a_request(migshare_comm *comm, int rank) {
    migshare_request request;
    int sum = rank + 1;
    CHECK(migshare_comm_set_patience(comm, 1));
    if (rank == 0) {
        REQUIRE(migshare_all_reduce(comm, &sum, &sum, 1, MIGSHARE_I32, MIGSHARE_SUM) == MIGSHARE_PENDING);
        request = migshare_unfinished();
        REQUIRE(migshare_test(comm, request, NULL) == MIGSHARE_PENDING);
        tell();
        CHECK(migshare_wait(comm, request, NULL));
    } else {
        hear();
        CHECK(migshare_comm_set_patience(comm, 0));
        CHECK(migshare_all_reduce(comm, &sum, &sum, 1, MIGSHARE_I32, MIGSHARE_SUM));
    }
    REQUIRE(sum == 3);
    CHECK(migshare_comm_set_patience(comm, 0));
    CHECK(migshare_barrier(comm));
}

/* A request of one communicator is not taken for one of another that was started as the so-many-th there. */
static void requests_belong_to_their_communicator(migshare_comm *comm, int rank) {
    migshare_comm *twin;
    migshare_request here, there;
    int mine = rank, other = 10 * rank;
    CHECK(migshare_comm_split(comm, 0, rank, &twin));
    CHECK(migshare_iall_reduce(comm, &mine, &mine, 1, MIGSHARE_I32, MIGSHARE_SUM, &here));
    CHECK(migshare_iall_reduce(twin, &other, &other, 1, MIGSHARE_I32, MIGSHARE_SUM, &there));
    REQUIRE(here != there);
    REQUIRE(migshare_wait(comm, there, NULL) == MIGSHARE_INVALID && migshare_test(twin, here, NULL) == MIGSHARE_INVALID);
    CHECK(migshare_wait(comm, here, NULL));
    CHECK(migshare_wait(twin, there, NULL));
    REQUIRE(mine == 1 && other == 10);
    CHECK(migshare_barrier(twin));
    CHECK(migshare_comm_free(twin));
}

/* Requests of a rank that aborts have failed, and their buffers are no longer used: what the peer had sent before is not put there. */
static void an_abort_ends_the_use_of_buffers(migshare_comm *comm, int rank) {
    char byte = 'k';
    migshare_request request;
    if (rank == 0) {
        CHECK(migshare_irecv(comm, &byte, 1, 1, 0, &request));
        CHECK(migshare_barrier(comm));
        hear();
        CHECK(migshare_comm_abort(comm));
        REQUIRE(migshare_test(comm, request, NULL) == MIGSHARE_PEER_LOST && byte == 'k');
    } else {
        CHECK(migshare_barrier(comm));
        CHECK(migshare_send(comm, "s", 1, 0, 0));
        tell();
        REQUIRE(migshare_barrier(comm) == MIGSHARE_PEER_LOST);
    }
}

typedef void (*promise)(migshare_comm *, int);
static const promise PROMISES[] = {
    a_second_thread_is_told_to_wait, a_wrong_tag_ends_the_communicator, small_failures_end_nothing,
    integers_are_those_of_c,         a_silent_rank_is_named,            what_is_in_flight_is_abandoned,
    nothing_needs_no_buffer,         a_limited_wait_ends_and_the_request_goes_on,
    requests_belong_to_their_communicator, an_abort_ends_the_use_of_buffers,
    an_impatient_collective_becomes_a_request,
};

/* The segment may be freed while communicators still use the memory. */
static void as_ranks(promise body, migshare_segment *(*open)(int rank)) {
    REQUIRE(pipe(note) == 0);
    pid_t ranks[RANKS];
    for (int rank = 0; rank < RANKS; rank++) {
        if ((ranks[rank] = fork()) != 0) continue;
        migshare_segment *segment = open(rank);
        migshare_comm *comm;
        CHECK(migshare_comm_join(segment, rank, LONG, &comm));
        CHECK(migshare_segment_free(segment));
        body(comm, rank);
        CHECK(migshare_comm_free(comm));
        exit(0);
    }
    for (int rank = 0; rank < RANKS; rank++) {
        int status;
        REQUIRE(waitpid(ranks[rank], &status, 0) == ranks[rank] && status == 0);
    }
    close(note[0]);
    close(note[1]);
}

static migshare_segment *made;
static char name[64];

static migshare_segment *inherited(int rank) {
    (void)rank;
    migshare_segment *copy;
    CHECK(migshare_segment_from_fd(migshare_segment_fd(made), RANKS, &copy));
    return copy;
}

static migshare_segment *named(int rank) {
    (void)rank;
    migshare_segment *opened;
    CHECK(migshare_segment_open_named(name, RANKS, &opened));
    return opened;
}

/* The creator's free removes the name; a named segment has no descriptor. */
static void a_named_segment_goes_with_its_maker(void) {
    migshare_segment *opened;
    snprintf(name, sizeof name, "/migshare-promises-%d", (int)getpid());
    CHECK(migshare_segment_create_named(name, 16 << 20, RANKS, &made));
    REQUIRE(migshare_segment_fd(made) == -1);
    REQUIRE(migshare_segment_create_named(name, 16 << 20, RANKS, &opened) == MIGSHARE_SYSTEM);
    as_ranks(integers_are_those_of_c, named);
    CHECK(migshare_segment_free(made));
    REQUIRE(migshare_segment_open_named(name, RANKS, &opened) == MIGSHARE_SYSTEM);
}

/* A process that nobody made a rank is told what to do. */
static void nobody_is_told_what_to_do(void) {
    static const char *const ALL[] = {"MIGSHARE_RANK", "MIGSHARE_SIZE", "MIGSHARE_SEGMENT_FD", "MIGSHARE_SEGMENT_SOCKET",
                                      "RANK",          "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"};
    for (size_t i = 0; i < sizeof ALL / sizeof *ALL; i++) unsetenv(ALL[i]);
    migshare_comm *comm;
    REQUIRE(migshare_comm_from_env(&comm) == MIGSHARE_SYSTEM && strstr(migshare_last_error(), "srun --mig-share"));
    setenv("MIGSHARE_RANK", "0", 1);
    setenv("MIGSHARE_SIZE", "1", 1);
    REQUIRE(migshare_comm_from_env(&comm) == MIGSHARE_SYSTEM && strstr(migshare_last_error(), "segment=SIZE"));
}

int main(void) {
    for (size_t i = 0; i < sizeof PROMISES / sizeof *PROMISES; i++) {
        CHECK(migshare_segment_create(0, RANKS, &made));
        as_ranks(PROMISES[i], inherited);
        CHECK(migshare_segment_free(made));
    }
    a_named_segment_goes_with_its_maker();
    nobody_is_told_what_to_do();
    return 0;
}

// Gloo over loopback TCP, its only transport within a node.
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/alltoall.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/gather.h>
#include <gloo/math.h>
#include <gloo/reduce.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/scatter.h>
#include <gloo/transport/tcp/device.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "worker.h"

static std::shared_ptr<gloo::rendezvous::Context> context;

void peer_start(int, char **argv, int *rank, int *size) {
    *rank = std::atoi(std::getenv("MIGSHARE_RANK"));
    *size = std::atoi(std::getenv("MIGSHARE_SIZE"));
    gloo::transport::tcp::attr attr;
    attr.hostname = "127.0.0.1";
    std::string folder(argv[1]);
    gloo::rendezvous::FileStore store(folder);
    context = std::make_shared<gloo::rendezvous::Context>(*rank, *size);
    auto device = gloo::transport::tcp::CreateDevice(attr);
    context->connectFullMesh(store, device);
}

void peer_barrier(void) {
    gloo::BarrierOptions options(context);
    gloo::barrier(options);
}

int peer_run(enum operation op, const float *send, float *recv, size_t n) {
    auto from = const_cast<float *>(send);
    auto sum = static_cast<void (*)(void *, const void *, const void *, size_t)>(&gloo::sum<float>);
    size_t all = n * context->size;
    if (op == ALL_REDUCE) {
        gloo::AllreduceOptions options(context);
        options.setInput(from, n), options.setOutput(recv, n), options.setReduceFunction(sum);
        gloo::allreduce(options);
    } else if (op == BROADCAST) {
        gloo::BroadcastOptions options(context);
        options.setOutput(recv, n), options.setRoot(0);
        gloo::broadcast(options);
    } else if (op == REDUCE) {
        gloo::ReduceOptions options(context);
        options.setInput(from, n), options.setOutput(recv, n), options.setRoot(0), options.setReduceFunction(sum);
        gloo::reduce(options);
    } else if (op == ALL_GATHER) {
        gloo::AllgatherOptions options(context);
        options.setInput(from, n), options.setOutput(recv, all);
        gloo::allgather(options);
    } else if (op == GATHER) {
        gloo::GatherOptions options(context);
        options.setInput(from, n), options.setOutput(recv, all), options.setRoot(0);
        gloo::gather(options);
    } else if (op == ALL_TO_ALL) {
        gloo::AlltoallOptions options(context);
        options.setInput(from, all), options.setOutput(recv, all);
        gloo::alltoall(options);
    } else {
        return 0;
    }
    return 1;
}

void *peer_alloc(size_t) { return nullptr; }

void peer_stop(void) { context.reset(); }

/* A CUDA driver library whose GPU memory is host memory, for running real pycuda where there is no GPU.
 *
 * Work put into a stream is left undone until somebody waits for it, so a missing synchronisation shows as a wrong
 * result, always. Device addresses lie in a range that no process can read and are never used twice, so touching them
 * from the host ends the process, and a freed one is known as such. Time is played too: the host's clock moves only by
 * waiting and by launches that are made slow, a kernel takes a millisecond, a host function that is usleep its
 * argument, all else nothing, and a stream does one thing after the other. Every call is checked; what is wrong is written to
 * the file named by SHIM_REPORT when the process ends, together with everything that was never released. Two devices
 * are played. README.md says what this proves. */

#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEVICES 2
#define DEEPEST 16
#define KERNEL_MS 1.0
#define SPACE ((size_t)1 << 40) /* bytes of device addresses, reserved and never backed */

enum Kind { DEVICE_MEMORY, HOST_MEMORY, STREAM, EVENT, GRAPH, GRAPH_EXEC, KINDS };
static const char *const KIND_NAMES[] = {"device memory", "page-locked memory", "a stream", "an event", "a graph",
                                         "an executable graph"};

enum Action { COPY_IN, COPY_OUT, CALL, RECORD, WAIT };

typedef struct Op {
  enum Action action;
  void *host;
  CUdeviceptr device;
  size_t bytes;
  CUhostFn function;
  void *argument;
  struct Object *event;
  struct Op *next;
} Op;

typedef struct Queue {
  Op *head, *tail;
} Queue;

typedef struct Object {
  enum Kind kind;
  int live;
  CUcontext context;
  size_t bytes;
  uintptr_t address; /* of memory, as the program knows it */
  char *backing;     /* of device memory: where its bytes really are */
  Queue queue;       /* of a stream, a graph: what is to be done */
  Queue captured;    /* of a stream that is being captured */
  Op *running;       /* of a stream: what a waiting thread is doing for it */
  int blocking; /* a stream that waits for the default stream, and the other way round */
  int capturing, invalidated;
  CUstreamCaptureMode mode;
  pthread_t capturer;
  Op *pending; /* of an event: the record that has not happened; stale ones are no longer pending */
  struct Object *recorder;
  int recorded;
  double due; /* in milliseconds: when the last thing put into a stream ends, or the last record of an event happens */
  struct Object *next;
} Object;

struct CUctx_st {
  int device, retains;
  CUresult lost;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t progress = PTHREAD_COND_INITIALIZER;
static struct CUctx_st primary[DEVICES] = {{0, 0, 0}, {1, 0, 0}};
static __thread CUcontext stack[DEEPEST];
static __thread int depth;
static int initialised;
static Object *objects;
static uintptr_t next_address;
static double host_ms, launch_ms;
static int copies_in, most_graphs = 1 << 30;
static size_t total_memory = (size_t)1 << 30;
static char misuse[1 << 16];
static struct {
  char name[64];
  int countdown;
  CUresult code;
} fault;

static void report(const char *format, ...) {
  char line[512];
  va_list values;
  va_start(values, format);
  vsnprintf(line, sizeof line, format, values);
  va_end(values);
  size_t used = strlen(misuse);
  snprintf(misuse + used, sizeof misuse - used, "%s\n", line);
}

/* After these a context computes nothing any more: cuda.h says so of each. Any other failure passes. */
static int sticky(CUresult code) {
  return code == CUDA_ERROR_CONTAINED || code == CUDA_ERROR_ILLEGAL_ADDRESS || code == CUDA_ERROR_LAUNCH_TIMEOUT ||
         code == CUDA_ERROR_CONTEXT_IS_DESTROYED || code == CUDA_ERROR_ASSERT ||
         (code >= CUDA_ERROR_HARDWARE_STACK_ERROR && code <= CUDA_ERROR_LAUNCH_FAILED) ||
         code == CUDA_ERROR_TENSOR_MEMORY_LEAK || code == CUDA_ERROR_MPS_CLIENT_TERMINATED ||
         code == CUDA_ERROR_EXTERNAL_DEVICE;
}

static CUcontext current(void) { return depth ? stack[depth - 1] : NULL; }

/* Whether `call` may go on: the driver is up, no fault was asked for here, a live context is current. */
static CUresult enter(const char *call, int needs_context) {
  pthread_mutex_lock(&lock);
  if (!initialised) {
    report("%s before cuInit", call);
    return CUDA_ERROR_NOT_INITIALIZED;
  }
  if (!strcmp(fault.name, call) && --fault.countdown == 0) {
    if (current() && sticky(fault.code)) current()->lost = fault.code;
    return fault.code;
  }
  if (!needs_context) return CUDA_SUCCESS;
  if (!current()) {
    report("%s without a current context", call);
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  if (!current()->retains) {
    report("%s in a context that was released", call);
    return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  }
  return current()->lost;
}

static CUresult leave(CUresult status) {
  pthread_mutex_unlock(&lock);
  return status;
}

#define ENTER(needs_context)                                 \
  do {                                                       \
    CUresult entered = enter(__func__, needs_context);       \
    if (entered) return leave(entered);                      \
  } while (0)

static Object *create(enum Kind kind, size_t bytes) {
  Object *made = calloc(1, sizeof *made);
  made->kind = kind;
  made->live = 1;
  made->context = current();
  made->bytes = bytes;
  made->next = objects;
  return objects = made;
}

/* `handle` as a live object of this kind and of the current context, or NULL and a line in the report. */
static Object *checked(const char *call, enum Kind kind, const void *handle) {
  for (Object *o = objects; o; o = o->next) {
    if (o != handle || o->kind != kind) continue;
    if (!o->live) return report("%s on %s that was destroyed", call, KIND_NAMES[kind]), NULL;
    if (o->context != current()) return report("%s on %s of another context", call, KIND_NAMES[kind]), NULL;
    return o;
  }
  return report("%s on what is not %s", call, KIND_NAMES[kind]), NULL;
}

/* The live memory of this kind that holds all of [address, address + bytes), or NULL and a line in the report. */
static Object *memory(const char *call, enum Kind kind, uintptr_t address, size_t bytes) {
  for (Object *o = objects; o; o = o->next) {
    if (o->kind != kind || address < o->address || address >= o->address + o->bytes) continue;
    if (!o->live) {
      if (kind == HOST_MEMORY) continue; /* the allocator may have given the address to another since */
      return report("%s of freed %s", call, KIND_NAMES[kind]), NULL;
    }
    if (address + bytes > o->address + o->bytes)
      return report("%s of %zu bytes beyond the end of %s", call, bytes, KIND_NAMES[kind]), NULL;
    return o;
  }
  return report("%s of a pointer that is not %s", call, KIND_NAMES[kind]), NULL;
}

static char *behind(CUdeviceptr address) {
  for (Object *o = objects; o; o = o->next)
    if (o->kind == DEVICE_MEMORY && o->live && address >= o->address && address < o->address + o->bytes)
      return o->backing + (address - o->address);
  return NULL;
}

static double later(double one, double other) { return one > other ? one : other; }

static int sleeps(const Op *op) { return op->action == CALL && op->function == dlsym(RTLD_DEFAULT, "usleep"); }

/* Set when `op`, put into `stream` now, will have happened. */
static void schedule(Object *stream, const Op *op) {
  double end = later(stream->due, host_ms);
  if (op->action == WAIT) end = later(end, op->event->due);
  if (op->action == CALL) end += sleeps(op) ? (double)(uintptr_t)op->argument / 1e3 : KERNEL_MS;
  if (op->action == RECORD) op->event->due = end;
  stream->due = end;
}

static Op *put(Queue *queue, Op op) {
  Op *made = malloc(sizeof *made);
  *made = op;
  made->next = NULL;
  if (queue->tail) queue->tail->next = made;
  else queue->head = made;
  return queue->tail = made;
}

static void drain(Object *stream, const Object *until);

/* Do one operation; the lock is held, and let go while the program's own function runs. */
static void perform(Object *stream, Op *op) {
  CUresult *lost = &stream->context->lost;
  if (op->action == WAIT && op->event->pending) drain(op->event->recorder, op->event);
  if (*lost) return;
  char *data = op->action <= COPY_OUT ? behind(op->device) : NULL;
  if (op->action <= COPY_OUT && !data) {
    report("a copy ran after its device memory was freed");
    return;
  }
  if (op->action == COPY_IN) memcpy(data, op->host, op->bytes);
  if (op->action == COPY_OUT) memcpy(op->host, data, op->bytes);
  if (op->action == CALL && !sleeps(op)) {
    if (!strcmp(fault.name, "kernel") && --fault.countdown == 0) {
      *lost = fault.code;
      return;
    }
    pthread_mutex_unlock(&lock);
    op->function(op->argument);
    pthread_mutex_lock(&lock);
  }
}

/* Do what lies in `stream`, all of it or until the event `until` is recorded. */
static void drain(Object *stream, const Object *until) {
  while ((stream->queue.head || stream->running) && !(until && !until->pending)) {
    if (stream->running) {
      pthread_cond_wait(&progress, &lock);
      continue;
    }
    Op *op = stream->running = stream->queue.head;
    stream->queue.head = op->next;
    if (!op->next) stream->queue.tail = NULL;
    perform(stream, op);
    if (op->action == RECORD && op->event->pending == op) {
      op->event->pending = NULL;
      op->event->recorded = 1;
    }
    stream->running = NULL;
    free(op);
    pthread_cond_broadcast(&progress);
  }
}

static int uses(const Op *op, const Object *held) {
  if (!op) return 0;
  uintptr_t touched = held->kind == HOST_MEMORY ? (uintptr_t)op->host : op->device;
  return op->action <= COPY_OUT && touched >= held->address && touched < held->address + held->bytes;
}

static int in_use(const Object *held) {
  for (Object *o = objects; o; o = o->next) {
    if (o->kind != STREAM || !o->live) continue;
    if (uses(o->running, held)) return 1;
    for (Op *op = o->queue.head; op; op = op->next)
      if (uses(op, held)) return 1;
  }
  return 0;
}

/* ---- what a stream that is being recorded cannot bear ---- */

static int mine(const Object *stream) { return pthread_equal(stream->capturer, pthread_self()); }

/* Recordings that calls like cuMemAlloc end: one of this thread, or one of any thread that was begun as global. */
static int forbids_unsafe(const Object *stream) {
  return stream->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
         (stream->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && mine(stream));
}

static int blocks(const Object *stream) { return stream->blocking; }

static int any(const Object *stream) { return stream != NULL; }

/* End the recordings of this context that `hit` says, as failures; whether there were some. */
static int disturbs(int (*hit)(const Object *)) {
  int found = 0;
  for (Object *o = objects; o; o = o->next) {
    if (o->kind != STREAM || !o->live || !o->capturing || o->context != current() || !hit(o)) continue;
    found = o->invalidated = 1;
  }
  return found;
}

#define UNSAFE_IN_CAPTURE                                                              \
  do {                                                                                 \
    if (disturbs(forbids_unsafe)) return leave(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED); \
  } while (0)

/* ---- what tests use besides the driver's own calls ---- */

/* The call named `name` (or "kernel": work in a stream, which loses the context) fails at its `countdown`th time. */
void shim_fail(const char *name, int countdown, int code) {
  snprintf(fault.name, sizeof fault.name, "%s", name);
  fault.countdown = countdown;
  fault.code = (CUresult)code;
}

/* Every launch of a kernel or a graph takes the host so long. */
void shim_slow_launches(double milliseconds) { launch_ms = milliseconds; }

/* There is memory for that many executable graphs. */
void shim_set_graphs(int count) { most_graphs = count; }

void shim_set_memory(size_t bytes) { total_memory = bytes; }

int shim_live(int kind) {
  int count = 0;
  for (Object *o = objects; o; o = o->next) count += o->kind == (enum Kind)kind && o->live;
  return count;
}

/* Bytes of device memory that are in use, in all contexts. */
size_t shim_bytes(void) {
  size_t sum = 0;
  for (Object *o = objects; o; o = o->next)
    if (o->kind == DEVICE_MEMORY && o->live) sum += o->bytes;
  return sum;
}

/* How many copies to a device were put into streams. */
int shim_copies(void) { return copies_in; }

const char *shim_misuse(void) { return misuse; }

void shim_report(const char *line) { report("%s", line); }

/* Where `bytes` bytes of device memory really are, for the code that plays a kernel; NULL where there are none. */
void *shim_translate(uintptr_t address, size_t bytes) {
  pthread_mutex_lock(&lock);
  Object *held = memory("a kernel's access", DEVICE_MEMORY, address, bytes);
  void *found = held ? held->backing + (address - held->address) : NULL;
  pthread_mutex_unlock(&lock);
  return found;
}

/* Whether all of [address, address + bytes) lies in live memory of this kind. */
int shim_holds(int kind, uintptr_t address, size_t bytes) {
  int found = 0;
  pthread_mutex_lock(&lock);
  for (Object *o = objects; o && !found; o = o->next)
    found = o->kind == (enum Kind)kind && o->live && address >= o->address && address + bytes <= o->address + o->bytes;
  pthread_mutex_unlock(&lock);
  return found;
}

__attribute__((destructor)) static void finish(void) {
  const char *path = getenv("SHIM_REPORT");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (!file) return;
  for (Object *o = objects; o; o = o->next)
    if (o->live) report("leaked: %s (%zu bytes)", KIND_NAMES[o->kind], o->bytes);
  for (int i = 0; i < DEVICES; i++)
    if (primary[i].retains) report("leaked: the primary context of device %d, %d times", i, primary[i].retains);
  fputs(misuse, file);
  fclose(file);
}

/* ---- devices and contexts ---- */

CUresult cuInit(unsigned flags) {
  (void)flags;
  pthread_mutex_lock(&lock);
  if (!initialised) {
    void *space = mmap(NULL, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) return leave(CUDA_ERROR_OUT_OF_MEMORY);
    next_address = (uintptr_t)space;
  }
  initialised = 1;
  return leave(CUDA_SUCCESS);
}

CUresult cuDriverGetVersion(int *version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }

CUresult cuGetErrorString(CUresult code, const char **text) {
  *text = code == CUDA_ERROR_OUT_OF_MEMORY       ? "out of memory"
          : code == CUDA_ERROR_INVALID_CONTEXT   ? "invalid device context"
          : code == CUDA_ERROR_ILLEGAL_ADDRESS   ? "an illegal memory access was encountered"
          : code == CUDA_ERROR_LAUNCH_FAILED     ? "unspecified launch failure"
          : code == CUDA_ERROR_INVALID_DEVICE    ? "invalid device ordinal"
          : code == CUDA_ERROR_INVALID_VALUE     ? "invalid argument"
                                                 : "another error";
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) { return *count = DEVICES, CUDA_SUCCESS; }

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  if (ordinal < 0 || ordinal >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  return *device = ordinal, CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  return snprintf(name, length, "Host memory %d", device), CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  (void)device;
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? 8
           : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 9
                                                                       : 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
  (void)device;
  return *major = 8, *minor = 9, CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
  (void)device;
  return *bytes = total_memory, CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  ENTER(0);
  primary[device].retains++;
  *context = &primary[device];
  return leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  ENTER(0);
  CUcontext context = &primary[device];
  if (!context->retains) return report("%s more often than retained", __func__), leave(CUDA_ERROR_INVALID_CONTEXT);
  if (--context->retains) return leave(CUDA_SUCCESS);
  for (Object *o = objects; o; o = o->next) { /* the last one out: the context goes, with what is in it */
    if (!o->live || o->context != context) continue;
    if (!context->lost) report("%s with %s in the context (%zu bytes)", __func__, KIND_NAMES[o->kind], o->bytes);
    o->live = 0;
  }
  return leave(CUDA_SUCCESS);
}

CUresult cuCtxPushCurrent(CUcontext context) {
  ENTER(0);
  if (depth == DEEPEST) report("%s: %d contexts deep", __func__, depth);
  else stack[depth++] = context;
  return leave(CUDA_SUCCESS);
}

CUresult cuCtxPopCurrent(CUcontext *context) {
  ENTER(0);
  if (!depth) return report("%s from an empty stack", __func__), leave(CUDA_ERROR_INVALID_CONTEXT);
  *context = stack[--depth];
  return leave(CUDA_SUCCESS);
}

CUresult cuCtxGetCurrent(CUcontext *context) { return *context = current(), CUDA_SUCCESS; }

CUresult cuCtxGetDevice(CUdevice *device) {
  ENTER(1);
  *device = current()->device;
  return leave(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void) {
  ENTER(1);
  if (disturbs(any)) return leave(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  for (Object *o = objects; o; o = o->next)
    if (o->kind == STREAM && o->live && o->context == current()) drain(o, NULL);
  return leave(current()->lost);
}

/* ---- memory ---- */

static size_t allocated(void) {
  size_t sum = 0;
  for (Object *o = objects; o; o = o->next)
    if (o->kind == DEVICE_MEMORY && o->live && o->context == current()) sum += o->bytes;
  return sum;
}

CUresult cuMemGetInfo(size_t *free_bytes, size_t *total) {
  ENTER(1);
  *total = total_memory;
  *free_bytes = total_memory - allocated();
  return leave(CUDA_SUCCESS);
}

CUresult cuMemAlloc(CUdeviceptr *pointer, size_t bytes) {
  ENTER(1);
  UNSAFE_IN_CAPTURE;
  if (!bytes) return leave(CUDA_ERROR_INVALID_VALUE);
  if (allocated() + bytes > total_memory) return leave(CUDA_ERROR_OUT_OF_MEMORY);
  Object *made = create(DEVICE_MEMORY, bytes);
  made->backing = memset(malloc(bytes), 0xCD, bytes);
  made->address = next_address;
  next_address += (bytes + 511) / 256 * 256;
  *pointer = made->address;
  return leave(CUDA_SUCCESS);
}

static CUresult release(const char *call, enum Kind kind, uintptr_t address) {
  Object *held = memory(call, kind, address, 1);
  if (!held || held->address != address) return leave(CUDA_ERROR_INVALID_VALUE);
  if (held->context != current()) report("%s in another context than it was allocated in", call);
  if (in_use(held)) report("%s of %s that work in a stream still uses", call, KIND_NAMES[kind]);
  held->live = 0;
  free(kind == HOST_MEMORY ? (void *)held->address : held->backing);
  return leave(CUDA_SUCCESS);
}

CUresult cuMemFree(CUdeviceptr pointer) {
  ENTER(1);
  UNSAFE_IN_CAPTURE;
  return release(__func__, DEVICE_MEMORY, pointer);
}

CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  (void)flags;
  ENTER(1);
  UNSAFE_IN_CAPTURE;
  Object *made = create(HOST_MEMORY, bytes);
  *pointer = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096); /* whole pages are locked */
  made->address = (uintptr_t)*pointer;
  return leave(CUDA_SUCCESS);
}

CUresult cuMemFreeHost(void *pointer) {
  ENTER(1);
  UNSAFE_IN_CAPTURE;
  return release(__func__, HOST_MEMORY, (uintptr_t)pointer);
}

static CUresult enqueue(const char *call, CUstream handle, Op op) {
  Object *stream = checked(call, STREAM, handle);
  if (!stream) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (stream->invalidated) return leave(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  if (!stream->capturing) schedule(stream, &op);
  Op *made = put(stream->capturing ? &stream->captured : &stream->queue, op);
  if (op.action == RECORD) op.event->pending = made, op.event->recorder = stream;
  return leave(CUDA_SUCCESS);
}

static CUresult copy(const char *call, CUstream stream, Op op) {
  if (!memory(call, DEVICE_MEMORY, op.device, op.bytes)) return leave(CUDA_ERROR_INVALID_VALUE);
  if (!memory(call, HOST_MEMORY, (uintptr_t)op.host, op.bytes)) return leave(CUDA_ERROR_INVALID_VALUE);
  copies_in += op.action == COPY_IN;
  if (op.action == COPY_OUT) memset(op.host, 0xA5, op.bytes); /* what is read before it is waited for */
  return enqueue(call, stream, op);
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr device, const void *host, size_t bytes, CUstream stream) {
  ENTER(1);
  return copy(__func__, stream, (Op){.action = COPY_IN, .host = (void *)host, .device = device, .bytes = bytes});
}

CUresult cuMemcpyDtoHAsync(void *host, CUdeviceptr device, size_t bytes, CUstream stream) {
  ENTER(1);
  return copy(__func__, stream, (Op){.action = COPY_OUT, .host = host, .device = device, .bytes = bytes});
}

/* A copy in the default stream, which waits for all blocking streams and ends their recordings. */
static CUresult copy_now(const char *call, CUdeviceptr device, void *host, size_t bytes, enum Action action) {
  if (disturbs(blocks)) return leave(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  Object *held = memory(call, DEVICE_MEMORY, device, bytes);
  if (!held) return leave(CUDA_ERROR_INVALID_VALUE);
  for (Object *o = objects; o; o = o->next)
    if (o->kind == STREAM && o->live && o->blocking && o->context == current()) drain(o, NULL);
  char *data = held->backing + (device - held->address);
  memcpy(action == COPY_IN ? data : host, action == COPY_IN ? host : data, bytes);
  return leave(current()->lost);
}

CUresult cuMemcpyHtoD(CUdeviceptr device, const void *host, size_t bytes) {
  ENTER(1);
  return copy_now(__func__, device, (void *)host, bytes, COPY_IN);
}

CUresult cuMemcpyDtoH(void *host, CUdeviceptr device, size_t bytes) {
  ENTER(1);
  return copy_now(__func__, device, host, bytes, COPY_OUT);
}

/* ---- streams and events ---- */

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  ENTER(1);
  Object *made = create(STREAM, 0);
  made->blocking = !(flags & CU_STREAM_NON_BLOCKING);
  *stream = (CUstream)made;
  return leave(CUDA_SUCCESS);
}

CUresult cuStreamDestroy(CUstream handle) {
  ENTER(1);
  Object *stream = checked(__func__, STREAM, handle);
  if (!stream) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (stream->queue.head || stream->running) report("%s with work that nobody waited for", __func__);
  stream->live = 0;
  return leave(CUDA_SUCCESS);
}

CUresult cuStreamSynchronize(CUstream handle) {
  ENTER(1);
  UNSAFE_IN_CAPTURE;
  Object *stream = checked(__func__, STREAM, handle);
  if (!stream) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (stream->capturing) {
    stream->invalidated = 1;
    return leave(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  drain(stream, NULL);
  host_ms = later(host_ms, stream->due);
  return leave(stream->context->lost);
}

CUresult cuStreamQuery(CUstream handle) {
  ENTER(1);
  Object *stream = checked(__func__, STREAM, handle);
  if (!stream) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (stream->capturing) {
    stream->invalidated = 1;
    return leave(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return leave(stream->queue.head || stream->running ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent handle, unsigned flags) {
  (void)flags;
  ENTER(1);
  Object *event = checked(__func__, EVENT, handle);
  if (!event) return leave(CUDA_ERROR_INVALID_HANDLE);
  return enqueue(__func__, stream, (Op){.action = WAIT, .event = event});
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *argument) {
  ENTER(1);
  host_ms += launch_ms;
  return enqueue(__func__, stream, (Op){.action = CALL, .function = function, .argument = argument});
}

CUresult cuEventCreate(CUevent *event, unsigned flags) {
  (void)flags;
  ENTER(1);
  *event = (CUevent)create(EVENT, 0);
  return leave(CUDA_SUCCESS);
}

CUresult cuEventDestroy(CUevent handle) {
  ENTER(1);
  Object *event = checked(__func__, EVENT, handle);
  if (!event) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (event->pending) report("%s before it was recorded", __func__);
  event->live = 0;
  return leave(CUDA_SUCCESS);
}

CUresult cuEventRecord(CUevent handle, CUstream stream) {
  ENTER(1);
  Object *event = checked(__func__, EVENT, handle);
  if (!event) return leave(CUDA_ERROR_INVALID_HANDLE);
  return enqueue(__func__, stream, (Op){.action = RECORD, .event = event});
}

CUresult cuEventSynchronize(CUevent handle) {
  ENTER(1);
  UNSAFE_IN_CAPTURE;
  Object *event = checked(__func__, EVENT, handle);
  if (!event) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (event->pending) drain(event->recorder, event);
  host_ms = later(host_ms, event->due);
  return leave(event->context->lost);
}

CUresult cuEventQuery(CUevent handle) {
  ENTER(1);
  Object *event = checked(__func__, EVENT, handle);
  if (!event) return leave(CUDA_ERROR_INVALID_HANDLE);
  return leave(event->pending && event->due > host_ms ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS);
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
  ENTER(1);
  Object *first = checked(__func__, EVENT, start), *last = checked(__func__, EVENT, end);
  if (!first || !last) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (first->pending || last->pending) return leave(CUDA_ERROR_NOT_READY);
  if (!first->recorded || !last->recorded) return leave(CUDA_ERROR_INVALID_HANDLE);
  *milliseconds = (float)(last->due - first->due);
  return leave(CUDA_SUCCESS);
}

/* ---- graphs ---- */

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  ENTER(1);
  Object *stream = checked(__func__, STREAM, handle);
  if (!stream) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (stream->capturing) return leave(CUDA_ERROR_ILLEGAL_STATE);
  stream->capturing = 1;
  stream->invalidated = 0;
  stream->mode = mode;
  stream->capturer = pthread_self();
  return leave(CUDA_SUCCESS);
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
  ENTER(1);
  Object *stream = checked(__func__, STREAM, handle);
  if (!stream) return leave(CUDA_ERROR_INVALID_HANDLE);
  *status = stream->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
            : stream->capturing ? CU_STREAM_CAPTURE_STATUS_ACTIVE
                                : CU_STREAM_CAPTURE_STATUS_NONE;
  return leave(CUDA_SUCCESS);
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
  ENTER(1);
  *graph = NULL;
  Object *stream = checked(__func__, STREAM, handle);
  if (!stream || !stream->capturing) return leave(CUDA_ERROR_ILLEGAL_STATE);
  if (stream->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !mine(stream))
    return leave(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  int invalidated = stream->invalidated;
  Queue captured = stream->captured;
  stream->capturing = stream->invalidated = 0;
  stream->captured = (Queue){NULL, NULL};
  if (invalidated) return leave(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  Object *made = create(GRAPH, 0);
  made->queue = captured;
  *graph = (CUgraph)made;
  return leave(CUDA_SUCCESS);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph handle, unsigned long long flags) {
  (void)flags;
  ENTER(1);
  Object *graph = checked(__func__, GRAPH, handle);
  if (!graph) return leave(CUDA_ERROR_INVALID_HANDLE);
  if (shim_live(GRAPH_EXEC) >= most_graphs) return leave(CUDA_ERROR_OUT_OF_MEMORY);
  Object *made = create(GRAPH_EXEC, 0);
  for (Op *op = graph->queue.head; op; op = op->next) put(&made->queue, *op);
  *exec = (CUgraphExec)made;
  return leave(CUDA_SUCCESS);
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
  ENTER(1);
  Object *exec = checked(__func__, GRAPH_EXEC, handle), *stream = checked(__func__, STREAM, stream_handle);
  if (!exec || !stream) return leave(CUDA_ERROR_INVALID_HANDLE);
  host_ms += launch_ms;
  for (Op *op = exec->queue.head; op; op = op->next) {
    schedule(stream, op);
    put(&stream->queue, *op);
  }
  return leave(CUDA_SUCCESS);
}

static CUresult discard(const char *call, enum Kind kind, void *handle) {
  Object *held = checked(call, kind, handle);
  if (!held) return leave(CUDA_ERROR_INVALID_HANDLE);
  held->live = 0;
  return leave(CUDA_SUCCESS);
}

CUresult cuGraphDestroy(CUgraph graph) {
  ENTER(1);
  return discard(__func__, GRAPH, graph);
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
  ENTER(1);
  return discard(__func__, GRAPH_EXEC, exec);
}

/* How cuda-bindings finds the calls: by their plain names, for the newest revision there is. */
CUresult cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags,
                          CUdriverProcAddressQueryResult *found) {
  (void)version, (void)flags;
  void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  char revised[128];
  snprintf(revised, sizeof revised, "%s%s", name, strcmp(name, "cuGraphInstantiate") ? "_v2" : "WithFlags");
  *function = dlsym(self, revised);
  if (!*function) *function = dlsym(self, name);
  if (found) *found = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* Called by the calls that pycuda binds and nothing here uses. */
CUresult shim_missing(const char *name) {
  report("%s was called, which this library does not play", name);
  return CUDA_ERROR_NOT_SUPPORTED;
}

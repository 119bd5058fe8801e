/* A stand-in for NVIDIA's libnvidia-ml.so.1: what jobs/telemetry/gpu.py makes nvidia-ml-py call, answered
 * for two GPUs and one instance of the second (MIG). Types and codes as in nvml.h.
 *
 * NVML_STANDIN_FAULTS   "nvmlDeviceGetPowerUsage=3 nvmlInitWithFlags=9": the error of a function
 * NVML_STANDIN_LOST     every call on a GPU fails with GPU_IS_LOST once this file exists
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, LOST = 15 };

typedef struct { const char *uuid, *name; unsigned index; int board; } Device;
static Device devices[] = {
    {"GPU-aaaaaaaa-0000-0000-0000-000000000000", "Stand-in A", 0, -1},
    {"GPU-bbbbbbbb-1111-1111-1111-111111111111", "Stand-in B", 1, -1},
    {"MIG-cccccccc-2222-2222-2222-222222222222", "Stand-in B MIG 1g", 0, 1},
};
enum { BOARDS = 2, ALL = 3 };
static unsigned long long asked; /* counters go on with every question */

static int fault(const char *function) {
    const char *faults = getenv("NVML_STANDIN_FAULTS");
    const char *at = faults ? strstr(faults, function) : NULL;
    return at && at[strlen(function)] == '=' ? atoi(at + strlen(function) + 1) : OK;
}

static int trouble(const char *function) {
    const char *lost = getenv("NVML_STANDIN_LOST");
    if (lost && access(lost, F_OK) == 0) return LOST;
    return fault(function);
}

#define CHECK do { int wrong = trouble(__func__); if (wrong) return wrong; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; return fault(__func__); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "an error"; }

int nvmlDeviceGetCount_v2(unsigned *count) { CHECK; *count = BOARDS; return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    CHECK;
    if (index >= BOARDS) return INVALID;
    *device = &devices[index];
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    CHECK;
    for (int i = 0; i < ALL; i++)
        if (strcmp(uuid, devices[i].uuid) == 0) { *device = &devices[i]; return OK; }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Device *device, char *text, unsigned size) { CHECK; snprintf(text, size, "%s", device->uuid); return OK; }
int nvmlDeviceGetName(Device *device, char *text, unsigned size) { CHECK; snprintf(text, size, "%s", device->name); return OK; }
int nvmlDeviceGetIndex(Device *device, unsigned *index) { CHECK; *index = device->index; return OK; }
int nvmlDeviceIsMigDeviceHandle(Device *device, unsigned *is) { CHECK; *is = device->board >= 0; return OK; }

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, Device **board) {
    CHECK;
    *board = &devices[device->board];
    return OK;
}

/* The real library does not answer these for an instance. */
#define WHOLE do { CHECK; if (device->board >= 0) return NOT_SUPPORTED; } while (0)

int nvmlDeviceGetUtilizationRates(Device *device, unsigned rates[2]) { WHOLE; rates[0] = 87; rates[1] = 41; return OK; }

int nvmlDeviceGetMemoryInfo(Device *device, unsigned long long memory[3]) {
    CHECK;
    memory[0] = 80ull << 30;
    memory[2] = (unsigned long long)(device - devices + 1) << 30;
    memory[1] = memory[0] - memory[2];
    return OK;
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) { WHOLE; *milliwatts = 312500; return OK; }

int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    WHOLE;
    *millijoules = 5000000ull + 1500 * asked++;
    return OK;
}

int nvmlDeviceGetClockInfo(Device *device, int type, unsigned *mhz) { WHOLE; *mhz = type == 1 ? 1755 : 2619; return OK; }
int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) { WHOLE; *celsius = sensor == 0 ? 63 : 0; return OK; }
int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *bits) { WHOLE; *bits = 0x4 | 0x20; return OK; }

int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *bits) { WHOLE; *bits = 0x8; return OK; }

int nvmlDeviceGetPcieThroughput(Device *device, int way, unsigned *kilobytes) { WHOLE; *kilobytes = way == 0 ? 7000 : 9000; return OK; }

int nvmlDeviceGetTotalEccErrors(Device *device, int type, int counter, unsigned long long *errors) {
    WHOLE;
    *errors = type == 1 && counter == 0 ? 3 : 99;
    return OK;
}

typedef struct {
    unsigned id, scope;
    long long timestamp, latency;
    unsigned type;
    int result;
    union { double d; unsigned ui; unsigned long ul; unsigned long long ull; } value;
} Field;

int nvmlDeviceGetFieldValues(Device *device, int count, Field *fields) {
    WHOLE;
    for (int i = 0; i < count; i++) {
        fields[i].type = 3;
        if (fields[i].scope != 0xFFFFFFFFu) return INVALID;
        fields[i].result = fault(fields[i].id < 200 ? "throughput" : "count");
        fields[i].value.ull = fields[i].id == 138 ? 1000 : fields[i].id == 139 ? 2000 : fields[i].id;
    }
    return OK;
}

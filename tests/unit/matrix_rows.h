/* matrix_rows.h - for matrix.c: who may say which message, of what; and how each is made.
 */
#pragma once

#include <tests/unit/gateway_fixture.h>

/* GONE: a key that is in no registry any more. */
enum as { WORKER, STUDIO, OTHER, OPERATOR, GONE, AS_COUNT };
/* UPLOADED: by another studio, and no job yet. */
enum which { OWN, FOREIGN, UPLOADED, UNKNOWN, WHICH_COUNT };

static const char *const AS_NAMES[] = {"worker", "studio", "other studio", "operator",
                                       "unknown key"};
static const char *const WHICH_NAMES[] = {"own", "foreign", "another's upload", "unknown"};

enum outcome {
    BROKERS,   /* it is the broker's to say */
    GO,        /* done, and answered */
    QUIET,     /* done, and there is no answer */
    NO_KEY,    /* nobody knows this key */
    NO_ROLE,   /* not with this role */
    NO_STUDIO, /* the key belongs to no studio */
    NO_ID,     /* there is no such thing */
    NO_TICKET, /* the lease is not this worker's */
    TAKEN,     /* the id was used before */
    STALE,
};

static const struct {
    const char *name;
    enum code code;
} OUTCOMES[] = {
    [BROKERS] = {"no message for a broker", CODE_INVALID},
    [GO] = {"done", CODE_OK},
    [QUIET] = {"done without an answer", CODE_OK},
    [NO_KEY] = {"unknown key", CODE_REFUSED},
    [NO_ROLE] = {"not with this role", CODE_REFUSED},
    [NO_STUDIO] = {"of no studio", CODE_REFUSED},
    [NO_ID] = {"no such thing", CODE_UNKNOWN},
    [NO_TICKET] = {"no ticket", CODE_REFUSED},
    [TAKEN] = {"its id is used", CODE_CONFLICT},
    [STALE] = {"a newer session", CODE_STALE},
};

/* The cell at hand. */
static struct cell {
    enum as as;
    enum which which;
    uint8_t job[16], request[16];
    Wl__Lease lease;
    ProtobufCBinaryData ticket;
    uint64_t session;
    ProtobufCBinaryData job_data, request_data;
} cell;

/* ---- what is said ---- */

typedef void make(Wl__Envelope *envelope);

static Wl__BlockRef recipe;
static uint8_t block[32] = {1};

#define MAKE(Type, body)                                                                           \
    static Wl__##Type message;                                                                     \
    wl__##body##__init(&message);                                                                  \
    envelope->body = &message

static void hello(Wl__Envelope *envelope)
{
    static uint8_t boot[16] = {1};
    static Wl__Offer offer;
    MAKE(Hello, hello);

    wl__offer__init(&offer);
    offer.slots = 1;
    message.protocol = WIRE_PROTOCOL;
    message.session = cell.session - (cell.as == WORKER); /* older than the one that is there */
    message.boot = (ProtobufCBinaryData){sizeof boot, boot};
    message.offer = cell.as == WORKER ? &offer : NULL;
}

static void submit_of(Wl__Submit *submit, const char *name)
{
    static Wl__Range range, *ranges[] = {&range};
    static Wl__SpaceParameter frames, *space[] = {&frames};
    static Wl__Step step, *steps[] = {&step};
    static uint8_t key[32] = {7};

    wl__range__init(&range);
    range.first = range.step = 1;
    range.last = 60;
    wl__space_parameter__init(&frames);
    frames.name = (char *)"Frame";
    frames.ranges = ranges;
    frames.n_ranges = 1;
    wl__step__init(&step);
    step.name = (char *)"beauty";
    step.space = space;
    step.n_space = 1;
    wl__block_ref__init(&recipe);
    recipe.id = recipe.wrapped_key = recipe.inline_sealed = (ProtobufCBinaryData){32, block};
    wl__submit__init(submit);
    submit->request_id = cell.request_data;
    submit->job = cell.job_data;
    submit->job_key = (ProtobufCBinaryData){32, key};
    submit->name = (char *)name;
    submit->recipe = &recipe;
    submit->steps = steps;
    submit->n_steps = 1;
}

static void submission(Wl__Envelope *envelope)
{
    MAKE(Submit, submit);
    submit_of(&message, "again");
}

static void uploading(Wl__Envelope *envelope)
{
    MAKE(Uploading, uploading);
    message.job = cell.job_data;
    message.name = (char *)"crater";
    message.gone = true; /* so that it stays unknown */
}

static void pass_request(Wl__Envelope *envelope)
{
    MAKE(PassRequest, pass_request);
    message.write_bytes = 1;
}

static void jobs_request(Wl__Envelope *envelope)
{
    MAKE(JobsRequest, jobs_request);
    message.all = message.uploads = true;
    message.prefix = (ProtobufCBinaryData){1, cell.job};
    message.prefix_nibbles = 2;
}

static void show_request(Wl__Envelope *envelope)
{
    MAKE(ShowRequest, show_request);
    message.job = cell.job_data;
}

static void results_request(Wl__Envelope *envelope)
{
    MAKE(ResultsRequest, results_request);
    message.job = cell.job_data;
}

static void attempts_request(Wl__Envelope *envelope)
{
    MAKE(AttemptsRequest, attempts_request);
    message.job = cell.job_data;
    message.failures = true;
}

static void live_log_request(Wl__Envelope *envelope)
{
    MAKE(LiveLogRequest, live_log_request);
    message.job = cell.job_data;
}

static void verb(Wl__Envelope *envelope)
{
    MAKE(Verb, verb);
    message.request_id = cell.request_data;
    message.job = cell.job_data;
    message.kind = WL__VERB_KIND__VERB_RETRY; /* nothing failed */
}

static void edit(Wl__Envelope *envelope)
{
    MAKE(Edit, edit);
    message.request_id = cell.request_data;
    message.job = cell.job_data;
    message.what = EDIT_NOTE;
    message.note = (char *)AS_NAMES[cell.as];
}

static void watch(Wl__Envelope *envelope)
{
    MAKE(Watch, watch);
    message.job = cell.job_data;
}

static void delivered(Wl__Envelope *envelope)
{
    MAKE(Delivered, delivered);
    message.job = cell.job_data;
    message.instead = true;
}

static void workers_request(Wl__Envelope *envelope)
{
    MAKE(WorkersRequest, workers_request);
    message.limit = 1;
}

static void tend(Wl__Envelope *envelope)
{
    static char *names[] = {(char *)"box1", (char *)"box2", (char *)"nobody", (char *)"nobody"};
    static char *workers[1];
    MAKE(Tend, tend);

    workers[0] = names[cell.which];
    message.request_id = cell.request_data;
    message.kind = WL__TEND_KIND__TEND_NOTE;
    message.text = (char *)"";
    message.workers = workers;
    message.n_workers = 1;
}

static void farm_request(Wl__Envelope *envelope)
{
    MAKE(FarmRequest, farm_request);
}

static void inventory(Wl__Envelope *envelope)
{
    static Wl__InventoryItem item, *items[] = {&item};
    MAKE(Inventory, inventory);

    wl__inventory_item__init(&item);
    item.lease = &cell.lease;
    item.ticket = cell.ticket;
    message.session = cell.session;
    message.items = items;
    message.n_items = 1;
    message.last = true;
}

static void beat(Wl__Envelope *envelope)
{
    MAKE(Beat, beat);
    message.session = cell.session;
}

#define MAKE_OF_LEASE(Type, body)                                                                  \
    MAKE(Type, body);                                                                              \
    message.session = cell.session;                                                                \
    message.lease = &cell.lease;                                                                   \
    message.ticket = cell.ticket

static void started(Wl__Envelope *envelope)
{
    MAKE_OF_LEASE(Started, started);
}

static void progress(Wl__Envelope *envelope)
{
    MAKE_OF_LEASE(Progress, progress);
}

static void result(Wl__Envelope *envelope)
{
    static Wl__BlockRef manifest, *manifests[] = {&manifest};
    MAKE_OF_LEASE(Result, result);

    wl__block_ref__init(&manifest);
    manifest.id = manifest.wrapped_key = manifest.inline_sealed = (ProtobufCBinaryData){32, block};
    message.manifest = manifests;
    message.n_manifest = 1;
    envelope->request = 0; /* as workers send it: the plain kind */
}

static void released(Wl__Envelope *envelope)
{
    MAKE_OF_LEASE(Released, released);
}

static void dependency_request(Wl__Envelope *envelope)
{
    MAKE_OF_LEASE(DependencyRequest, dependency_request);
}

static void worker_pass_request(Wl__Envelope *envelope)
{
    MAKE_OF_LEASE(WorkerPassRequest, worker_pass_request);
}

/* ---- the table ---- */

enum { JOB = 1, REQUEST = 2, LEASE = 4, BLOCK = 8, NAME = 16, NOTHING = 32 };

struct rule {
    make *make;
    unsigned names;
    enum outcome worker[WHICH_COUNT], studio[WHICH_COUNT], operator[WHICH_COUNT];
    bool brokers;
};

#define ALL(outcome)                                                                               \
    {                                                                                              \
        outcome, outcome, outcome, outcome                                                         \
    }
#define SEES_OWN                                                                                   \
    {                                                                                              \
        GO, NO_ID, NO_ID, NO_ID                                                                    \
    }
#define SEES_ALL                                                                                   \
    {                                                                                              \
        GO, GO, NO_ID, NO_ID                                                                       \
    }
#define HOLDS(outcome)                                                                             \
    {                                                                                              \
        outcome, NO_TICKET, NO_TICKET, NO_TICKET                                                   \
    }
#define OF_JOB        .worker = ALL(NO_ROLE), .studio = SEES_OWN, .operator= SEES_ALL
#define OF_LEASE(own) .worker = HOLDS(own), .studio = ALL(NO_ROLE), .operator= ALL(NO_ROLE)
#define BODY(upper)   [WL__ENVELOPE__BODY_##upper]

static const struct rule RULES[] = {
    BODY(HELLO) = {hello, 0, ALL(STALE), ALL(GO), ALL(GO)},
    /* An id is 128 random bits of the submitter's, and nobody's twice. */
    BODY(SUBMIT) =
        {submission, JOB | REQUEST | BLOCK, ALL(NO_ROLE), {TAKEN, TAKEN, GO, GO}, ALL(NO_STUDIO)},
    BODY(UPLOADING) = {uploading, JOB, ALL(NO_ROLE), ALL(GO), ALL(NO_STUDIO)},
    BODY(PASS_REQUEST) = {pass_request, 0, ALL(NO_ROLE), ALL(GO), ALL(NO_STUDIO)},
    BODY(JOBS_REQUEST) = {jobs_request, JOB, ALL(NO_ROLE), ALL(GO), ALL(GO)},
    BODY(SHOW_REQUEST) = {show_request, JOB, OF_JOB},
    BODY(RESULTS_REQUEST) = {results_request, JOB, OF_JOB},
    BODY(ATTEMPTS_REQUEST) = {attempts_request, JOB, OF_JOB},
    BODY(LIVE_LOG_REQUEST) = {live_log_request, JOB, OF_JOB},
    BODY(VERB) = {verb, JOB | REQUEST, OF_JOB},
    BODY(EDIT) = {edit, JOB | REQUEST | BLOCK, OF_JOB},
    BODY(WATCH) = {watch, JOB, OF_JOB},
    BODY(DELIVERED) = {delivered, JOB, OF_JOB},
    BODY(WORKERS_REQUEST) = {workers_request, 0, ALL(NO_ROLE), ALL(NO_ROLE), ALL(GO)},
    BODY(TEND) = {tend, REQUEST | NAME, ALL(NO_ROLE), ALL(NO_ROLE), SEES_ALL},
    BODY(FARM_REQUEST) = {farm_request, 0, ALL(NO_ROLE), ALL(GO), ALL(GO)},
    BODY(INVENTORY) = {inventory, LEASE, ALL(GO), ALL(NO_ROLE), ALL(NO_ROLE)}, /* "drop it" */
    BODY(BEAT) = {beat, 0, ALL(GO), ALL(NO_ROLE), ALL(NO_ROLE)},
    BODY(STARTED) = {started, LEASE, OF_LEASE(QUIET)},
    BODY(PROGRESS) = {progress, LEASE | BLOCK, OF_LEASE(QUIET)},
    BODY(DEPENDENCY_REQUEST) = {dependency_request, LEASE, OF_LEASE(GO)},
    BODY(WORKER_PASS_REQUEST) = {worker_pass_request, LEASE, OF_LEASE(GO)},
    BODY(RESULT) = {result, LEASE | BLOCK, OF_LEASE(GO)},
    BODY(RELEASED) = {released, LEASE, OF_LEASE(QUIET)},
    BODY(WELCOME) = {.brokers = true},
    BODY(REFUSAL) = {.brokers = true},
    BODY(ACCEPTED) = {.brokers = true},
    BODY(PASS) = {.brokers = true},
    BODY(JOBS) = {.brokers = true},
    BODY(SHOW) = {.brokers = true},
    BODY(RESULTS) = {.brokers = true},
    BODY(ATTEMPTS) = {.brokers = true},
    BODY(DONE) = {.brokers = true},
    BODY(NOTICE) = {.brokers = true},
    BODY(WORKERS) = {.brokers = true},
    BODY(LIVE_LOG) = {.brokers = true},
    BODY(TENDED) = {.brokers = true},
    BODY(FARM) = {.brokers = true},
    BODY(VERDICT) = {.brokers = true},
    BODY(ASSIGN) = {.brokers = true},
    BODY(REVOKE) = {.brokers = true},
    BODY(COMMITTED) = {.brokers = true},
    BODY(DEPENDENCY_RESULTS) = {.brokers = true},
};

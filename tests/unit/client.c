/* The control link against a broker of the test's own: what it says when nobody answers, and that
 * a request survives a broker that dies. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <client/connection.h>
#include <proto/base/bytes.h>

#define SESSION_JOB "0123456789abcdef0123456789abcdef"

static char folder[64];
static struct westlight_farm farm;

/* ---- a broker that answers as a test tells it ---- */

struct fake;
/* Answers one envelope (fake_answer), or does not. */
typedef void fake_handler(struct fake *fake, const Wl__Envelope *envelope);

struct fake {
    pthread_t thread;
    struct link_keypair keys;
    char endpoint[128];
    void *context, *socket;
    struct wire_inbox inbox;
    struct link_zap *zap;
    struct link_route route; /* of the message being handled */
    bool deny;
    atomic_bool stop;
    uint32_t protocol;
    fake_handler *handle;
    bool crash; /* asked for by the handler */
    unsigned hellos, seen;
    unsigned busy; /* so many are told to wait */
    uint8_t request_id[16], job_key[32];
    struct bytes recipe;
};

static int fake_allow(void *user, const struct link_key *key)
{
    (void)key;
    return ((struct fake *)user)->deny ? 1 : 0;
}

static void fake_open(struct fake *fake, const char *endpoint)
{
    assert_int_equal(link_context_new(1, &fake->context), 0);
    assert_int_equal(link_zap_new(fake->context, fake_allow, fake, &fake->zap), 0);
    int r = -1;
    for (int tries = 0; tries < 200 && r != 0; tries++) /* its port may still be closing */
        r = link_listen(fake->context, LINK_CONTROL, endpoint, &fake->keys, &fake->socket,
                        fake->endpoint);
    assert_int_equal(r, 0);
}

static void fake_close(struct fake *fake)
{
    wire_inbox_deinit(&fake->inbox);
    link_close(fake->socket);
    link_zap_free(fake->zap);
    link_context_free(fake->context);
}

static void fake_answer(struct fake *fake, Wl__Envelope *envelope)
{
    zmq_msg_t message;
    assert_int_equal(wire_pack(envelope, &message), 0);
    assert_int_equal(link_send(fake->socket, &fake->route, &message, NULL), 0);
}

static void fake_welcome(struct fake *fake, uint64_t request)
{
    Wl__Welcome welcome = WL__WELCOME__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;

    fake->hellos++;
    welcome.protocol = fake->protocol;
    welcome.program = (char *)"fake 9";
    welcome.epoch = 3;
    welcome.role = ROLE_STUDIO;
    welcome.studio = (char *)"acme";
    envelope.request = request;
    envelope.body_case = WL__ENVELOPE__BODY_WELCOME;
    envelope.welcome = &welcome;
    fake_answer(fake, &envelope);
}

static void fake_busy(struct fake *fake, uint64_t request)
{
    Wl__Refusal refusal = WL__REFUSAL__INIT;
    Wl__Envelope answer = WL__ENVELOPE__INIT;

    fake->busy--;
    refusal.code = CODE_BUSY;
    refusal.again_ms = 30;
    answer.request = request;
    answer.body_case = WL__ENVELOPE__BODY_REFUSAL;
    answer.refusal = &refusal;
    fake_answer(fake, &answer);
}

static void fake_turn(struct fake *fake)
{
    zmq_pollitem_t item = {.socket = fake->socket, .events = ZMQ_POLLIN};
    Wl__Envelope *envelope = NULL;
    struct link_key key;
    const char *why;

    zmq_poll(&item, 1, 20);
    if (wire_next(&fake->inbox, fake->socket, &key, &fake->route, &envelope, &why) != 0)
        return;
    if (fake->busy > 0)
        fake_busy(fake, envelope->request);
    else if (envelope->body_case == WL__ENVELOPE__BODY_HELLO)
        fake_welcome(fake, envelope->request);
    else if (fake->handle)
        fake->handle(fake, envelope);
    wire_free(envelope);
    if (fake->crash) {
        char endpoint[128];
        snprintf(endpoint, sizeof(endpoint), "%s", fake->endpoint);
        fake->crash = false;
        fake_close(fake);
        fake_open(fake, endpoint);
    }
}

static void *fake_main(void *user)
{
    struct fake *fake = user;
    while (!atomic_load(&fake->stop))
        fake_turn(fake);
    return NULL;
}

static void fake_start(struct fake *fake, fake_handler *handle)
{
    fake->handle = handle;
    if (fake->protocol == 0)
        fake->protocol = WIRE_PROTOCOL;
    assert_int_equal(identity_key_new(&fake->keys), 0);
    fake_open(fake, "tcp://127.0.0.1:*");
    snprintf(farm.control, sizeof(farm.control), "%s", fake->endpoint);
    identity_key_text(&fake->keys.public_key, farm.server_key);
    assert_int_equal(pthread_create(&fake->thread, NULL, fake_main, fake), 0);
}

static void fake_stop(struct fake *fake)
{
    atomic_store(&fake->stop, true);
    pthread_join(fake->thread, NULL);
    fake_close(fake);
    bytes_deinit(&fake->recipe);
}

static struct westlight *open_farm(void)
{
    struct westlight *westlight = NULL;
    char why[512] = "";
    int r = westlight_open(&farm, 5000, &westlight, why, sizeof(why));
    if (r != 0)
        fail_msg("%d: %s", r, why);
    return westlight;
}

static int make_folder(void **state)
{
    char public[WESTLIGHT_KEY_TEXT];
    snprintf(folder, sizeof(folder), "/tmp/westlight-client-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    setenv("XDG_STATE_HOME", folder, 1);
    snprintf(farm.name, sizeof(farm.name), "west");
    snprintf(farm.key_file, sizeof(farm.key_file), "%s/key", folder);
    snprintf(farm.secret_file, sizeof(farm.secret_file), "%s/secret", folder);
    return westlight_key_new(farm.key_file, farm.secret_file, public, NULL, 0);
}

static int remove_folder(void **state)
{
    return folder_remove(folder);
}

/* ---- opening ---- */

static void opening_says_who_one_is(void **state)
{
    struct fake fake = {0};
    fake_start(&fake, NULL);
    struct westlight *westlight = open_farm();
    assert_string_equal(westlight->studio, "acme");
    assert_int_equal(westlight->epoch, 3);
    westlight_close(westlight);
    fake_stop(&fake);
}

static void nobody_there_is_said_at_the_deadline(void **state)
{
    struct westlight *westlight = NULL;
    char why[512] = "";
    int64_t before_ns = clock_monotonic_ns();

    snprintf(farm.control, sizeof(farm.control), "tcp://127.0.0.1:1");
    snprintf(farm.server_key, sizeof(farm.server_key),
             "rq:rM>}U?@Lns47E1%%kR.o@n%%FcmmsL/@{H8]yf7");
    assert_int_equal(westlight_open(&farm, 300, &westlight, why, sizeof(why)),
                     WESTLIGHT_E_UNREACHABLE);
    assert_string_equal(why, "farm west at tcp://127.0.0.1:1: nobody answers: check the address, "
                             "or that the broker runs");
    assert_true(clock_monotonic_ns() - before_ns < 5 * NS_PER_S);
}

static void a_refused_key_is_said_at_once_with_the_next_step(void **state)
{
    struct fake fake = {.deny = true};
    struct westlight *westlight = NULL;
    char why[512] = "", key[IDENTITY_Z85_SIZE];
    struct link_keypair keys;

    fake_start(&fake, NULL);
    assert_int_equal(identity_key_load(farm.key_file, &keys), 0);
    identity_key_text(&keys.public_key, key);
    int64_t before_ns = clock_monotonic_ns();
    assert_int_equal(westlight_open(&farm, 20000, &westlight, why, sizeof(why)),
                     WESTLIGHT_E_REFUSED);
    assert_true(clock_monotonic_ns() - before_ns < 5 * NS_PER_S);
    assert_non_null(strstr(why, key));
    assert_non_null(strstr(why, "westlight-broker allow --state DIR --role studio --studio NAME"));
    fake_stop(&fake);
}

static void another_protocol_is_refused_with_both_versions(void **state)
{
    struct fake fake = {.protocol = 77};
    struct westlight *westlight = NULL;
    char why[512] = "";

    fake_start(&fake, NULL);
    assert_int_equal(westlight_open(&farm, 5000, &westlight, why, sizeof(why)),
                     WESTLIGHT_E_REFUSED);
    assert_non_null(strstr(why, "protocol 77"));
    assert_non_null(strstr(why, "this program 1 to 1"));
    fake_stop(&fake);
}

/* ---- requests ---- */

static void crash_then_done(struct fake *fake, const Wl__Envelope *envelope)
{
    Wl__Done done = WL__DONE__INIT;
    Wl__Envelope answer = WL__ENVELOPE__INIT;

    bool edit = envelope->body_case == WL__ENVELOPE__BODY_EDIT;

    assert_true(edit || envelope->body_case == WL__ENVELOPE__BODY_VERB);
    const uint8_t *id = edit ? envelope->edit->request_id.data : envelope->verb->request_id.data;
    if (fake->seen++ == 0) {
        memcpy(fake->request_id, id, 16);
        fake->crash = true;
        return;
    }
    done.tasks = memcmp(fake->request_id, id, 16) == 0 ? 7 : 0;
    answer.request = envelope->request;
    answer.body_case = WL__ENVELOPE__BODY_DONE;
    answer.done = &done;
    fake_answer(fake, &answer);
}

static void a_request_survives_a_broker_that_dies(void **state)
{
    struct fake fake = {0};
    uint64_t tasks = 0;

    fake_start(&fake, crash_then_done);
    struct westlight *westlight = open_farm();
    assert_int_equal(westlight_do(westlight, SESSION_JOB, WESTLIGHT_CANCEL, NULL, 0, &tasks), 0);
    assert_int_equal(tasks, 7); /* under the same request id */
    assert_int_equal(fake.seen, 2);
    assert_int_equal(fake.hellos, 2);
    westlight_close(westlight);
    fake_stop(&fake);
}

static void an_edit_survives_it_too(void **state)
{
    const char *const tags[] = {"final"};
    const struct westlight_changes changes = {
        .name = "take two", .tags = tags, .n_tags = 1, .set_priority = true, .priority = -3};
    struct fake fake = {0};
    uint64_t tasks = 0;

    fake_start(&fake, crash_then_done);
    struct westlight *westlight = open_farm();
    assert_int_equal(westlight_set(westlight, SESSION_JOB, &changes, &tasks), 0);
    assert_int_equal(tasks, 7);
    assert_int_equal(fake.hellos, 2);
    assert_int_equal(westlight_set(westlight, SESSION_JOB, &(struct westlight_changes){0}, NULL),
                     WESTLIGHT_E_USAGE);
    assert_int_equal(
        westlight_set(westlight, SESSION_JOB, &(struct westlight_changes){.name = ""}, NULL),
        WESTLIGHT_E_USAGE);
    assert_int_equal(fake.seen, 2); /* what makes no sense is not sent */
    westlight_close(westlight);
    fake_stop(&fake);
}

/* The first page looked at many jobs that are not listed. */
static void empty_page_first(struct fake *fake, const Wl__Envelope *envelope)
{
    uint8_t id[16] = {7};
    Wl__JobRow row = WL__JOB_ROW__INIT, *rows[] = {&row};
    Wl__Jobs jobs = WL__JOBS__INIT;
    Wl__Envelope answer = WL__ENVELOPE__INIT;

    assert_int_equal(envelope->body_case, WL__ENVELOPE__BODY_JOBS_REQUEST);
    row.job = (ProtobufCBinaryData){sizeof(id), id};
    jobs.jobs = rows;
    jobs.n_jobs = fake->seen % 2;
    jobs.more = fake->seen % 2 == 0;
    jobs.next = jobs.more ? 50 : 0;
    assert_int_equal(envelope->jobs_request->before_sequence, fake->seen % 2 ? 50 : 0);
    fake->seen++;
    answer.request = envelope->request;
    answer.body_case = WL__ENVELOPE__BODY_JOBS;
    answer.jobs = &jobs;
    fake_answer(fake, &answer);
}

static int count_row(void *user, const struct westlight_row *row)
{
    *(int *)user += row->id[1] == '7';
    return 0;
}

static void a_list_goes_on_past_an_empty_page(void **state)
{
    struct fake fake = {0};
    char id[WESTLIGHT_ID_TEXT];
    int rows = 0;

    fake_start(&fake, empty_page_first);
    struct westlight *westlight = open_farm();
    assert_int_equal(westlight_jobs(westlight, WESTLIGHT_ARCHIVED, count_row, &rows), 0);
    assert_int_equal(rows, 1);
    assert_int_equal(westlight_resolve(westlight, "last", id), 0);
    assert_int_equal(fake.seen, 4);
    westlight_close(westlight);
    fake_stop(&fake);
}

static void busy_then_done(struct fake *fake, const Wl__Envelope *envelope)
{
    Wl__Done done = WL__DONE__INIT;
    Wl__Envelope answer = WL__ENVELOPE__INIT;

    if (fake->seen++ == 0) {
        fake->busy = 2; /* of which this is one */
        fake_busy(fake, envelope->request);
        return;
    }
    answer.request = envelope->request;
    answer.body_case = WL__ENVELOPE__BODY_DONE;
    answer.done = &done;
    fake_answer(fake, &answer);
}

static void who_is_told_to_wait_asks_again(void **state)
{
    struct fake fake = {.busy = 2};
    int64_t begun_ns = clock_monotonic_ns();

    fake_start(&fake, busy_then_done);
    struct westlight *westlight = open_farm();
    assert_int_equal(westlight_do(westlight, SESSION_JOB, WESTLIGHT_PAUSE, NULL, 0, NULL), 0);
    assert_int_equal(fake.hellos, 1);
    assert_int_equal(fake.seen, 2);
    assert_true(clock_monotonic_ns() - begun_ns >= 4 * 30 * NS_PER_MS);
    westlight_close(westlight);
    fake_stop(&fake);
}

static void forget_then_refuse(struct fake *fake, const Wl__Envelope *envelope)
{
    Wl__Refusal refusal = WL__REFUSAL__INIT;
    Wl__Envelope answer = WL__ENVELOPE__INIT;

    fake->seen++;
    refusal.code = fake->hellos == 1 ? CODE_STATE : CODE_UNKNOWN;
    refusal.what = (char *)"job 0123";
    refusal.why = (char *)"no such job";
    refusal.next = (char *)"see westlight jobs";
    answer.request = envelope->request;
    answer.body_case = WL__ENVELOPE__BODY_REFUSAL;
    answer.refusal = &refusal;
    fake_answer(fake, &answer);
}

static void a_forgotten_connection_is_greeted_anew_and_a_refusal_is_a_sentence(void **state)
{
    struct fake fake = {0};

    fake_start(&fake, forget_then_refuse);
    struct westlight *westlight = open_farm();
    assert_int_equal(westlight_do(westlight, SESSION_JOB, WESTLIGHT_PAUSE, NULL, 0, NULL),
                     WESTLIGHT_E_UNKNOWN);
    assert_int_equal(fake.hellos, 2);
    assert_int_equal(fake.seen, 2);
    assert_string_equal(westlight_why(westlight), "job 0123: no such job: see westlight jobs");
    assert_int_equal(westlight_do(westlight, "0123", WESTLIGHT_PAUSE, NULL, 0, NULL),
                     WESTLIGHT_E_USAGE);
    westlight_close(westlight);
    fake_stop(&fake);
}

static void answer_row(struct fake *fake, const Wl__Envelope *envelope, uint64_t done, bool notice)
{
    uint8_t id[16];
    Wl__JobRow row = WL__JOB_ROW__INIT;
    Wl__Notice told = WL__NOTICE__INIT;
    Wl__Show show = WL__SHOW__INIT;
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    uint8_t block[32] = {0};
    Wl__Envelope answer = WL__ENVELOPE__INIT;

    assert_int_equal(hex_decode(SESSION_JOB, id, sizeof(id)), 0);
    row.job = (ProtobufCBinaryData){sizeof(id), id};
    row.name = (char *)"shot 7";
    row.tasks = 10;
    row.done = done;
    row.finished = done == row.tasks;
    row.running = 10 - done;
    told.row = show.row = &row;
    told.job = row.job;
    recipe.id = recipe.wrapped_key = (ProtobufCBinaryData){sizeof(block), block};
    show.recipe = &recipe;
    answer.request = envelope ? envelope->request : 0;
    answer.body_case = notice ? WL__ENVELOPE__BODY_NOTICE : WL__ENVELOPE__BODY_SHOW;
    if (notice)
        answer.notice = &told;
    else
        answer.show = &show;
    fake_answer(fake, &answer);
}

static void tell_of_a_job(struct fake *fake, const Wl__Envelope *envelope)
{
    if (envelope->body_case == WL__ENVELOPE__BODY_SHOW_REQUEST) {
        answer_row(fake, envelope, fake->seen, false);
    } else if (envelope->body_case == WL__ENVELOPE__BODY_WATCH) {
        answer_row(fake, envelope, 1, true);
    } else {
        for (uint64_t done = 2; done <= 4; done++) /* while a request is on its way */
            answer_row(fake, NULL, done, true);
        forget_then_refuse(fake, envelope);
    }
}

static void the_newest_notice_is_kept_while_a_request_is_on_its_way(void **state)
{
    struct fake fake = {.hellos = 1}; /* refusals are UNKNOWN at once */
    const struct westlight_notice *notice = NULL;

    fake_start(&fake, tell_of_a_job);
    struct westlight *westlight = open_farm();
    assert_int_equal(westlight_watch(westlight, SESSION_JOB), 0);
    assert_int_equal(westlight_do(westlight, SESSION_JOB, WESTLIGHT_PAUSE, NULL, 0, NULL),
                     WESTLIGHT_E_UNKNOWN);
    assert_int_equal(westlight_next(westlight, 5000, &notice), 0);
    assert_int_equal(notice->row.counts.done, 4);
    assert_string_equal(notice->row.name, "shot 7");
    assert_string_equal(notice->row.phase, "running");
    assert_int_equal(westlight_next(westlight, 20, &notice), WESTLIGHT_E_TIMEOUT);
    westlight_close(westlight);
    fake_stop(&fake);
}

static void *stop_it(void *user)
{
    westlight_stop(user);
    return NULL;
}

static void a_stop_ends_one_call(void **state)
{
    struct fake fake = {.hellos = 1};
    const struct westlight_notice *notice = NULL;
    pthread_t thread;

    fake_start(&fake, tell_of_a_job);
    struct westlight *westlight = open_farm();
    assert_int_equal(pthread_create(&thread, NULL, stop_it, westlight), 0);
    assert_int_equal(westlight_next(westlight, 20000, &notice), WESTLIGHT_E_STOPPED);
    pthread_join(thread, NULL);
    assert_int_equal(westlight_next(westlight, 1, &notice), WESTLIGHT_E_TIMEOUT);
    westlight_close(westlight);
    fake_stop(&fake);
}

/* ---- submission ---- */

static void accept_job(struct fake *fake, const Wl__Envelope *envelope)
{
    Wl__Accepted accepted = WL__ACCEPTED__INIT;
    Wl__Envelope answer = WL__ENVELOPE__INIT;
    struct sealer *sealer = NULL;
    struct block_key key;
    uint8_t secret[32];

    fake->seen++;
    assert_int_equal(envelope->body_case, WL__ENVELOPE__BODY_SUBMIT);
    assert_int_equal(envelope->submit->n_refs, 0);
    assert_int_equal(envelope->submit->n_steps, 1);
    memcpy(fake->job_key, envelope->submit->job_key.data, 32);
    job_key_in(fake->job_key, secret);
    assert_int_equal(sealer_new(&sealer), 0);
    const Wl__BlockRef *ref = envelope->submit->recipe;
    assert_int_equal(wire_block_ref(sealer, secret, ref, &key), 0);
    assert_int_equal(
        open_block(sealer, &key, ref->inline_sealed.data, ref->inline_sealed.len, &fake->recipe),
        0);
    sealer_free(sealer);

    accepted.job = envelope->submit->job;
    answer.request = envelope->request;
    answer.body_case = WL__ENVELOPE__BODY_ACCEPTED;
    answer.accepted = &accepted;
    fake_answer(fake, &answer);
}

static void keep_id(void *user, const char id[WESTLIGHT_ID_TEXT])
{
    memcpy(user, id, WESTLIGHT_ID_TEXT);
}

static void a_job_without_inputs_is_one_message(void **state)
{
    struct fake fake = {0};
    const struct westlight_range frames = {1, 3, 1};
    char id[WESTLIGHT_ID_TEXT] = "", early[WESTLIGHT_ID_TEXT] = "";
    const char *why = NULL;
    Wl__Recipe *recipe = NULL;

    struct westlight_job *job = westlight_job_new("one");
    struct westlight_step *step = westlight_job_step(job, "s");
    westlight_step_ints(step, "Frame", &frames, 1, 1);
    westlight_step_run(step, "true", NULL, 0, 60);
    fake_start(&fake, accept_job);
    struct westlight *westlight = open_farm();
    int r = westlight_submit(westlight, job, keep_id, NULL, early, id);
    if (r != 0)
        fail_msg("%d: %s", r, westlight_why(westlight));
    assert_int_equal(strlen(id), 32);
    assert_string_equal(id, early);
    assert_int_equal(fake.seen, 1);
    westlight_close(westlight);
    assert_int_equal(wire_recipe_unpack(fake.recipe.data, fake.recipe.size, &recipe, &why), 0);
    assert_string_equal(recipe->job_name, "one");
    assert_string_equal(recipe->steps[0]->on_run->command, "true");
    assert_int_equal(recipe->steps[0]->space[0]->ranges[0]->last, 3);
    wl__recipe__free_unpacked(recipe, NULL);
    fake_stop(&fake);
    westlight_job_free(job);
}

static void lack_then_accept(struct fake *fake, const Wl__Envelope *envelope)
{
    Wl__Refusal refusal = WL__REFUSAL__INIT;
    Wl__Envelope answer = WL__ENVELOPE__INIT;

    if (fake->seen > 0) {
        assert_memory_equal(fake->request_id, envelope->submit->request_id.data, 16);
        accept_job(fake, envelope);
        return;
    }
    fake->seen++;
    memcpy(fake->request_id, envelope->submit->request_id.data, 16);
    refusal.code = CODE_MISSING;
    answer.request = envelope->request;
    answer.body_case = WL__ENVELOPE__BODY_REFUSAL;
    answer.refusal = &refusal;
    fake_answer(fake, &answer);
}

static void blocks_that_went_missing_are_sent_and_the_request_repeated(void **state)
{
    struct fake fake = {0};
    char id[WESTLIGHT_ID_TEXT] = "";

    struct westlight_job *job = westlight_job_new("one");
    westlight_step_run(westlight_job_step(job, "s"), "true", NULL, 0, 0);
    fake_start(&fake, lack_then_accept);
    struct westlight *westlight = open_farm();
    assert_int_equal(westlight_submit(westlight, job, NULL, NULL, NULL, id), 0);
    assert_int_equal(fake.seen, 2);
    westlight_close(westlight);
    fake_stop(&fake);
    westlight_job_free(job);
}

static void a_missing_input_is_named_before_anything_is_sent(void **state)
{
    struct fake fake = {0};
    const char *files[] = {"scene.pov", "gone.inc"};
    char id[WESTLIGHT_ID_TEXT], path[128];

    snprintf(path, sizeof(path), "%s/scene.pov", folder);
    assert_int_equal(file_write(path, "x", 1, 0600), 0);
    struct westlight_job *job = westlight_job_new("one");
    westlight_job_root(job, folder, files, 2);
    westlight_step_run(westlight_job_step(job, "s"), "true", NULL, 0, 0);
    fake_start(&fake, accept_job);
    struct westlight *westlight = open_farm();
    assert_int_equal(westlight_submit(westlight, job, NULL, NULL, NULL, id), WESTLIGHT_E_MISSING);
    assert_non_null(strstr(westlight_why(westlight), "gone.inc: No such file"));
    assert_int_equal(fake.seen, 0);
    westlight_close(westlight);
    fake_stop(&fake);
    westlight_job_free(job);
}

static void bulk_is_beside_control_unless_told_otherwise(void **state)
{
    static const struct {
        const char *control, *said, *farm, *expected;
    } cases[] = {
        {"tcp://h:7420", "", "", "tcp://h:7421"},
        {"tcp://h:7420", "tcp://*:99", "", "tcp://h:99"},
        {"tcp://h:7420", "tcp://0.0.0.0:99", "", "tcp://h:99"},
        {"tcp://[::1]:7420", "tcp://[::]:99", "", "tcp://[::1]:99"},
        {"tcp://h:7420", "tcp://other:99", "", "tcp://other:99"},
        {"tcp://h:7420", "tcp://other:99", "tcp://mine:1", "tcp://mine:1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct westlight *westlight = calloc(1, sizeof(*westlight));
        char endpoint[256];
        snprintf(westlight->farm.control, sizeof(westlight->farm.control), "%s", cases[i].control);
        snprintf(westlight->farm.bulk, sizeof(westlight->farm.bulk), "%s", cases[i].farm);
        snprintf(westlight->bulk, sizeof(westlight->bulk), "%s", cases[i].said);
        assert_int_equal(connection_bulk(westlight, endpoint, sizeof(endpoint)), 0);
        assert_string_equal(endpoint, cases[i].expected);
        free(westlight);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_says_who_one_is),
        cmocka_unit_test(nobody_there_is_said_at_the_deadline),
        cmocka_unit_test(a_refused_key_is_said_at_once_with_the_next_step),
        cmocka_unit_test(another_protocol_is_refused_with_both_versions),
        cmocka_unit_test(a_request_survives_a_broker_that_dies),
        cmocka_unit_test(an_edit_survives_it_too),
        cmocka_unit_test(a_list_goes_on_past_an_empty_page),
        cmocka_unit_test(who_is_told_to_wait_asks_again),
        cmocka_unit_test(a_forgotten_connection_is_greeted_anew_and_a_refusal_is_a_sentence),
        cmocka_unit_test(the_newest_notice_is_kept_while_a_request_is_on_its_way),
        cmocka_unit_test(a_stop_ends_one_call),
        cmocka_unit_test(a_job_without_inputs_is_one_message),
        cmocka_unit_test(blocks_that_went_missing_are_sent_and_the_request_repeated),
        cmocka_unit_test(a_missing_input_is_named_before_anything_is_sent),
        cmocka_unit_test(bulk_is_beside_control_unless_told_otherwise),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

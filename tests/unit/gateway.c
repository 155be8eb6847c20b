/* The broker's edge from outside: peers say what they may not, and see what they get.
 */
#include <sqlite3.h>
#include <tests/unit/gateway_fixture.h>

/* ---- the facts ---- */

static void an_unknown_key_is_refused_at_the_door(void **state)
{
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;
    enum link_status status = LINK_DOWN;
    struct peer_link link;
    void *monitor;

    (void)state;
    connect_as(&link, NOBODY);
    assert_int_equal(link_monitor(link.context, link.socket, &monitor), 0);
    while (status != LINK_REFUSED) {
        assert_true(clock_monotonic_ns() < until_ns);
        link_monitor_read(monitor, &status);
        usleep(5000);
    }
    link_close(monitor);
    disconnect(&link);
}

static void a_key_that_is_forbidden_is_refused_on_a_live_connection(void **state)
{
    int64_t until_ns = clock_monotonic_ns() + 5 * NS_PER_S;
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct worker_key key;
    struct peer_link ann;
    bool refused = false;

    (void)state;
    join_as(&ann, ANN);
    memcpy(key.bytes, broker.keys[ANN].public_key.bytes, sizeof key.bytes);
    assert_int_equal(store_forbid(broker.state, &key, &why), 0);
    while (!refused) {
        assert_true(clock_monotonic_ns() < until_ns);
        Wl__JobsRequest jobs = WL__JOBS_REQUEST__INIT;
        say(&ann, &ENVELOPE(JOBS_REQUEST, jobs_request, &jobs));
        Wl__Envelope *answer = hear_within(&ann, PATIENCE_MS);
        assert_non_null(answer);
        refused = answer->body_case == WL__ENVELOPE__BODY_REFUSAL &&
                  answer->refusal->code == CODE_REFUSED;
        wire_free(answer);
    }
    disconnect(&ann);
}

static void hello_comes_first_and_names_both_protocols_where_they_differ(void **state)
{
    struct peer_link ann;

    (void)state;
    connect_as(&ann, ANN);
    say_show(&ann, 1);
    hear_refusal(&ann, CODE_STATE);
    say_hello(&ann, 99);
    Wl__Envelope *refusal = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(refusal->refusal->code, CODE_PROTOCOL);
    assert_non_null(strstr(refusal->refusal->why, "99"));
    assert_non_null(strstr(refusal->refusal->why, "speaks 1"));
    wire_free(refusal);
    say_hello(&ann, WIRE_PROTOCOL);
    Wl__Envelope *welcome = hear(&ann, WL__ENVELOPE__BODY_WELCOME);
    assert_string_equal(welcome->welcome->studio, "acme");
    assert_int_equal(welcome->welcome->role, ROLE_STUDIO);
    wire_free(welcome);
    disconnect(&ann);
}

static void a_role_says_only_what_is_its_own(void **state)
{
    Wl__WorkersRequest workers = WL__WORKERS_REQUEST__INIT;
    struct peer_link ann, ops, box;
    Wl__Beat beat = WL__BEAT__INIT;

    (void)state;
    join_as(&ann, ANN);
    join_as(&ops, OPS);
    worker_join(&box, BOX1, 1);
    say(&ann, &ENVELOPE(WORKERS_REQUEST, workers_request, &workers));
    hear_refusal(&ann, CODE_REFUSED);
    say(&ann, &ENVELOPE(BEAT, beat, &beat));
    hear_refusal(&ann, CODE_REFUSED);
    beat.session = 1;
    say(&box, &ENVELOPE(BEAT, beat, &beat));
    wire_free(hear(&box, WL__ENVELOPE__BODY_BEAT)); /* answered, so that silence says something */
    say_submit(&box, 1, 1, 2);
    hear_refusal(&box, CODE_REFUSED);
    say_submit(&ops, 1, 1, 2); /* an operator without a studio */
    hear_refusal(&ops, CODE_REFUSED);
    say(&ops, &ENVELOPE(WORKERS_REQUEST, workers_request, &workers));
    Wl__Envelope *answer = hear(&ops, WL__ENVELOPE__BODY_WORKERS);
    assert_int_equal(answer->workers->n_workers, 1);
    assert_string_equal(answer->workers->workers[0]->name, "box1");
    wire_free(answer);
    disconnect(&ann);
    disconnect(&ops);
    disconnect(&box);
}

static void say_tend(struct peer_link *link, uint8_t request, Wl__TendKind kind, const char *worker,
                     const char *text)
{
    uint8_t request_id[16] = {request};
    char *workers[] = {(char *)worker};
    Wl__Tend tend = WL__TEND__INIT;

    tend.request_id = (ProtobufCBinaryData){16, request_id};
    tend.kind = kind;
    tend.workers = workers;
    tend.n_workers = 1;
    tend.text = (char *)text;
    say(link, &ENVELOPE(TEND, tend, &tend));
}

static void hear_tended(struct peer_link *link, const char *state)
{
    Wl__Envelope *answer = hear(link, WL__ENVELOPE__BODY_TENDED);

    assert_int_equal(answer->tended->n_rows, 1);
    assert_string_equal(answer->tended->rows[0]->name, "box1");
    assert_string_equal(answer->tended->rows[0]->state, state);
    wire_free(answer);
}

static void an_operator_alone_tends_workers_and_once_a_request(void **state)
{
    struct peer_link ann, ops, box;

    (void)state;
    join_as(&ann, ANN);
    join_as(&ops, OPS);
    worker_join(&box, BOX1, 1);
    say_tend(&ann, 1, WL__TEND_KIND__TEND_DRAIN, "box1", "");
    hear_refusal(&ann, CODE_REFUSED);
    say_tend(&box, 1, WL__TEND_KIND__TEND_DRAIN, "box1", "");
    hear_refusal(&box, CODE_REFUSED);
    say_tend(&ops, 1, WL__TEND_KIND__TEND_DRAIN, "box", "");
    hear_refusal(&ops, CODE_UNKNOWN);
    say_tend(&ops, 1, (Wl__TendKind)6, "box1", ""); /* the core's own */
    hear_refusal(&ops, CODE_INVALID);
    say_tend(&ops, 1, WL__TEND_KIND__TEND_DRAIN, "box1", "");
    hear_tended(&ops, "drained");
    say_tend(&ops, 1, WL__TEND_KIND__TEND_UNDRAIN, "box1", "");
    hear_refusal(&ops, CODE_CONFLICT);
    say_tend(&ops, 2, WL__TEND_KIND__TEND_UNDRAIN, "1", ""); /* by its number */
    hear_tended(&ops, "idle");
    disconnect(&ops);

    assert_int_equal(broker_stop(SIGKILL), -SIGKILL);
    broker_start();
    join_as(&ops, OPS);
    say_tend(&ops, 1, WL__TEND_KIND__TEND_DRAIN, "box1", ""); /* answered before, not done again */
    hear_tended(&ops, "away");
    disconnect(&ann);
    disconnect(&ops);
    disconnect(&box);
}

static void a_studio_learns_what_there_is_to_render_with_and_no_more(void **state)
{
    Wl__FarmRequest request = WL__FARM_REQUEST__INIT;
    struct peer_link ann, box, other;

    (void)state;
    join_as(&ann, ANN);
    say(&ann, &ENVELOPE(FARM_REQUEST, farm_request, &request));
    Wl__Envelope *answer = hear(&ann, WL__ENVELOPE__BODY_FARM);
    assert_int_equal(answer->farm->n_software, 0);
    wire_free(answer);
    worker_join(&box, BOX1, 1);
    worker_join(&other, BOX2, 2);
    say(&ann, &ENVELOPE(FARM_REQUEST, farm_request, &request));
    answer = hear(&ann, WL__ENVELOPE__BODY_FARM);
    assert_int_equal(answer->farm->n_software, 1); /* once, though two workers have it */
    assert_false(answer->farm->more);
    assert_string_equal(answer->farm->software[0]->name, "povray");
    assert_int_equal(answer->farm->software[0]->n_versions, 2);
    assert_string_equal(answer->farm->software[0]->versions[0], "3.7");
    assert_string_equal(answer->farm->software[0]->versions[1], "3.8");
    wire_free(answer);
    say(&box, &ENVELOPE(FARM_REQUEST, farm_request, &request));
    hear_refusal(&box, CODE_REFUSED);
    disconnect(&ann);
    disconnect(&box);
    disconnect(&other);
}

static void a_foreign_job_is_answered_exactly_as_an_unknown_one(void **state)
{
    struct peer_link ann, bob;
    Wl__Envelope *foreign, *unknown;

    (void)state;
    join_as(&ann, ANN);
    join_as(&bob, BOB);
    submit(&ann, 1, 1, 2);
    say_show(&bob, 1);
    foreign = hear(&bob, WL__ENVELOPE__BODY_REFUSAL);
    say_show(&bob, 2);
    unknown = hear(&bob, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(foreign->refusal->code, CODE_UNKNOWN);
    assert_int_equal(unknown->refusal->code, CODE_UNKNOWN);
    assert_string_equal(foreign->refusal->what, unknown->refusal->what);
    assert_string_equal(foreign->refusal->why, unknown->refusal->why);
    assert_string_equal(foreign->refusal->next, unknown->refusal->next);
    wire_free(foreign);
    wire_free(unknown);
    disconnect(&ann);
    disconnect(&bob);
}

static void say_uploading(struct peer_link *link, uint8_t job, uint64_t bytes_done)
{
    uint8_t id[16] = {job};
    Wl__Uploading uploading = WL__UPLOADING__INIT;

    uploading.job = (ProtobufCBinaryData){sizeof id, id};
    uploading.name = (char *)"crater";
    uploading.files = 3;
    uploading.file_bytes = 1000;
    uploading.bytes_done = bytes_done;
    say(link, &ENVELOPE(UPLOADING, uploading, &uploading));
}

/* The jobs that begin with the digits of `job`, uploads too; 0: all. The caller's to free. */
static Wl__Envelope *jobs_of(struct peer_link *link, uint8_t job)
{
    Wl__JobsRequest request = WL__JOBS_REQUEST__INIT;

    request.all = request.uploads = true;
    request.prefix = (ProtobufCBinaryData){1, &job};
    request.prefix_nibbles = job ? 2 : 0;
    say(link, &ENVELOPE(JOBS_REQUEST, jobs_request, &request));
    return hear(link, WL__ENVELOPE__BODY_JOBS);
}

static size_t n_jobs(struct peer_link *link, uint8_t job)
{
    Wl__Envelope *answer = jobs_of(link, job);
    size_t n = answer->jobs->n_jobs;

    wire_free(answer);
    return n;
}

static void say_cancel_job(struct peer_link *link, uint8_t job)
{
    uint8_t id[16] = {job}, request[16] = {99, job};
    Wl__Verb verb = WL__VERB__INIT;

    verb.request_id = (ProtobufCBinaryData){sizeof request, request};
    verb.job = (ProtobufCBinaryData){sizeof id, id};
    verb.kind = WL__VERB_KIND__VERB_CANCEL;
    say(link, &ENVELOPE(VERB, verb, &verb));
}

static void an_upload_is_seen_by_its_studio_until_the_job_is_accepted(void **state)
{
    struct peer_link ann, bob, ops, box;
    Wl__Envelope *answer;

    (void)state;
    join_as(&ann, ANN);
    join_as(&bob, BOB);
    join_as(&ops, OPS);
    worker_join(&box, BOX1, 1);
    say_uploading(&box, 0x17, 0);
    hear_refusal(&box, CODE_REFUSED);
    say_uploading(&ops, 0x17, 0); /* of no studio */
    hear_refusal(&ops, CODE_REFUSED);
    say_uploading(&ann, 0x17, 0);
    wire_free(hear(&ann, WL__ENVELOPE__BODY_DONE));
    say_uploading(&ann, 0x17, 2000); /* more than there is */
    wire_free(hear(&ann, WL__ENVELOPE__BODY_DONE));

    answer = jobs_of(&ann, 0x17);
    assert_int_equal(answer->jobs->n_jobs, 1);
    assert_string_equal(answer->jobs->jobs[0]->name, "crater");
    assert_string_equal(answer->jobs->jobs[0]->person, "ann");
    assert_int_equal(answer->jobs->jobs[0]->upload->bytes_done, 1000);
    assert_false(answer->jobs->jobs[0]->upload->stopped);
    wire_free(answer);
    assert_int_equal(n_jobs(&ann, 0), 1);
    assert_int_equal(n_jobs(&ann, 0x18), 0);
    assert_int_equal(n_jobs(&bob, 0x17) + n_jobs(&bob, 0), 0);
    say_show(&ann, 0x17);
    hear_refusal(&ann, CODE_STATE);
    say_show(&bob, 0x17);
    hear_refusal(&bob, CODE_UNKNOWN);
    say_cancel_job(&bob, 0x17);
    hear_refusal(&bob, CODE_UNKNOWN);

    submit(&ann, 1, 0x17, 2);
    answer = jobs_of(&ann, 0);
    assert_int_equal(answer->jobs->n_jobs, 1);
    assert_null(answer->jobs->jobs[0]->upload);
    wire_free(answer);
    say_uploading(&ann, 0x17, 1000); /* a word that came late */
    wire_free(hear(&ann, WL__ENVELOPE__BODY_DONE));
    assert_int_equal(n_jobs(&ann, 0), 1);
    disconnect(&ann);
    disconnect(&bob);
    disconnect(&ops);
    disconnect(&box);
}

static void an_upload_that_was_cancelled_is_not_accepted(void **state)
{
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    say_uploading(&ann, 0x17, 0);
    wire_free(hear(&ann, WL__ENVELOPE__BODY_DONE));
    for (int i = 0; i < 2; i++) {
        say_cancel_job(&ann, 0x17);
        if (i == 0)
            wire_free(hear(&ann, WL__ENVELOPE__BODY_DONE));
        else
            hear_refusal(&ann, CODE_UNKNOWN);
        assert_int_equal(n_jobs(&ann, 0), 0);
        say_uploading(&ann, 0x17, 10);
        hear_refusal(&ann, CODE_STATE);
        say_submit(&ann, 1, 0x17, 2);
        hear_refusal(&ann, CODE_STATE);
    }
    submit(&ann, 1, 0x18, 2);
    disconnect(&ann);
}

static void the_same_request_gets_the_same_answer_after_a_kill_too(void **state)
{
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    uint64_t sequence = submit(&ann, 1, 1, 2);
    assert_int_equal(submit(&ann, 1, 1, 2), sequence);
    say_submit(&ann, 1, 1, 3);
    hear_refusal(&ann, CODE_CONFLICT);
    disconnect(&ann);

    assert_int_equal(broker_stop(SIGKILL), -SIGKILL);
    broker_start();
    join_as(&ann, ANN);
    assert_int_equal(submit(&ann, 1, 1, 2), sequence);
    say_submit(&ann, 1, 1, 3);
    hear_refusal(&ann, CODE_CONFLICT);
    disconnect(&ann);
}

/* Frames 1 to n of both steps, `wanted` of them; a name; under this request. */
static void say_edit(struct peer_link *link, uint8_t request, uint8_t job, int64_t n,
                     int64_t wanted)
{
    uint8_t request_id[16] = {request}, job_id[16] = {job}, block[32] = {2};
    Wl__Range ranges[] = {WL__RANGE__INIT, WL__RANGE__INIT}, frames = WL__RANGE__INIT;
    Wl__Range *list[] = {&ranges[0], &ranges[1]}, *frame_list[] = {&frames};
    Wl__SpaceParameter parameter = WL__SPACE_PARAMETER__INIT, *space[] = {&parameter};
    Wl__StepSpace step = WL__STEP_SPACE__INIT, *spaces[] = {&step, &step};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Edit edit = WL__EDIT__INIT;

    ranges[0] = ranges[1] = frames;
    ranges[0].first = ranges[0].step = ranges[1].step = frames.first = frames.step = 1;
    ranges[0].last = 2;
    ranges[1].first = 3;
    ranges[1].last = n;
    frames.last = wanted;
    parameter.name = (char *)"Frame";
    parameter.ranges = list;
    parameter.n_ranges = n > 2 ? 2 : 1;
    step.space = space;
    step.n_space = 1;
    recipe.id = recipe.wrapped_key = recipe.inline_sealed = (ProtobufCBinaryData){32, block};
    edit.request_id = (ProtobufCBinaryData){16, request_id};
    edit.job = (ProtobufCBinaryData){16, job_id};
    edit.what = EDIT_NAME | EDIT_FRAMES;
    edit.name = (char *)"take two";
    edit.frames = frame_list;
    edit.n_frames = 1;
    edit.spaces = spaces;
    edit.n_spaces = n > 2 ? 2 : 0;
    edit.recipe = n > 2 ? &recipe : NULL;
    say(link, &ENVELOPE(EDIT, edit, &edit));
}

static void edit_done(struct peer_link *link, uint64_t tasks)
{
    Wl__Envelope *done = hear(link, WL__ENVELOPE__BODY_DONE);

    assert_int_equal(done->done->tasks, tasks);
    wire_free(done);
}

static void an_edit_is_done_once_and_outlives_a_kill(void **state)
{
    struct peer_link ann, bob;

    (void)state;
    join_as(&ann, ANN);
    join_as(&bob, BOB);
    submit(&ann, 1, 1, 2);
    say_edit(&bob, 1, 1, 4, 4);
    hear_refusal(&bob, CODE_UNKNOWN);
    say_edit(&ann, 2, 1, 4, 5); /* frame 5 is in no space: those that are there are wanted */
    edit_done(&ann, 4);
    say_edit(&ann, 3, 1, 3, 3); /* made before the other was taken */
    hear_refusal(&ann, CODE_STALE);
    say_edit(&ann, 4, 1, 2, 1);
    edit_done(&ann, 6); /* three of each step are left out */
    disconnect(&ann);
    disconnect(&bob);

    assert_int_equal(broker_stop(SIGKILL), -SIGKILL);
    broker_start();
    join_as(&ann, ANN);
    say_edit(&ann, 2, 1, 4, 5);
    edit_done(&ann, 4); /* the same answer, and nothing done */
    say_edit(&ann, 4, 1, 2, 2);
    hear_refusal(&ann, CODE_CONFLICT);
    say_show(&ann, 1);
    Wl__Envelope *answer = hear(&ann, WL__ENVELOPE__BODY_SHOW);
    const Wl__Show *show = answer->show;
    assert_string_equal(show->row->name, "take two");
    assert_int_equal(show->row->tasks, 2);
    assert_int_equal(show->recipe->id.data[0], 2);
    assert_int_equal(show->steps[0]->space[0]->n_ranges, 2);
    assert_int_equal(show->frames[0]->last, 1);
    wire_free(answer);
    disconnect(&ann);
}

/* What lies unread at the broker's control port, in bytes, once it is more than `than`. */
static unsigned unread_past(unsigned than)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    unsigned wanted = (unsigned)atoi(strrchr(broker.control, ':') + 1), sum = 0;

    while (sum <= than) {
        FILE *connections = fopen("/proc/net/tcp", "r");
        char line[256];

        assert_non_null(connections);
        assert_true(clock_monotonic_ns() < until_ns);
        for (sum = 0; fgets(line, sizeof line, connections);) {
            unsigned port, state, unread;

            if (sscanf(line, " %*d: %*x:%x %*x:%*x %x %*x:%x", &port, &state, &unread) == 3 &&
                port == wanted && state == 1) /* established */
                sum += unread;
        }
        fclose(connections);
    }
    return sum;
}

/* Both are there when the broker looks, so that its packets hold leases of before and after. */
static void a_lease_after_an_edit_has_the_new_recipe(void **state)
{
    struct peer_link ann, box;

    (void)state;
    broker.slots = 4;
    worker_join(&box, BOX1, 1);
    broker.slots = 0;
    join_as(&ann, ANN);
    assert_int_equal(kill(broker.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(broker.pid, NULL, WUNTRACED), broker.pid); /* it reads nothing more */
    say_submit(&ann, 1, 1, 2);
    unsigned unread = unread_past(0);
    say_edit(&ann, 2, 1, 4, 4);
    (void)unread_past(unread);
    assert_int_equal(kill(broker.pid, SIGCONT), 0);
    for (uint64_t task = 0; task < 4; task++) {
        Wl__Envelope *assign = hear(&box, WL__ENVELOPE__BODY_ASSIGN);

        assert_int_equal(assign->assign->lease->task, task);
        assert_int_equal(assign->assign->recipe->id.data[0], task < 2 ? 1 : 2);
        wire_free(assign);
    }
    disconnect(&ann);
    disconnect(&box);
}

static void refs_that_the_vault_lacks_are_named(void **state)
{
    uint8_t id[32] = {9}, request[16] = {1}, job[16] = {1};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    ProtobufCBinaryData refs = {32, id};
    Wl__Submit submission = WL__SUBMIT__INIT;
    Wl__Step step = WL__STEP__INIT, *steps[] = {&step};
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    recipe.id = recipe.wrapped_key = refs;
    submission.request_id = (ProtobufCBinaryData){16, request};
    submission.job = (ProtobufCBinaryData){16, job};
    submission.job_key = refs;
    submission.name = (char *)"shot";
    submission.recipe = &recipe;
    submission.steps = steps;
    submission.n_steps = 1;
    submission.refs = &refs;
    submission.n_refs = 1;
    say(&ann, &ENVELOPE(SUBMIT, submit, &submission));
    Wl__Envelope *answer = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(answer->refusal->code, CODE_MISSING);
    assert_int_equal(answer->refusal->n_missing, 1);
    assert_memory_equal(answer->refusal->missing[0].data, id, sizeof id);
    wire_free(answer);
    disconnect(&ann);
}

static void a_result_counts_with_its_own_ticket_only(void **state)
{
    struct peer_link ann, box1, box2;

    (void)state;
    join_as(&ann, ANN);
    worker_join(&box1, BOX1, 1);
    submit(&ann, 1, 1, 1);
    Wl__Envelope *assign = hear(&box1, WL__ENVELOPE__BODY_ASSIGN);

    say_result(&box1, assign->assign, true);
    hear_committed(&box1, CODE_REFUSED);
    worker_join(&box2, BOX2, 1);
    say_result(&box2, assign->assign, false); /* another worker's ticket */
    hear_committed(&box2, CODE_REFUSED);
    assert_int_equal(done_of(&ann, 1), 0);

    say_result(&box1, assign->assign, false);
    hear_committed(&box1, CODE_OK);
    say_result(&box1, assign->assign, false);
    hear_committed(&box1, CODE_ALREADY);
    assert_int_equal(done_of(&ann, 1), 1);
    wire_free(assign);
    disconnect(&ann);
    disconnect(&box1);
    disconnect(&box2);
}

static void an_older_session_is_not_heard(void **state)
{
    struct peer_link ann, older, newer;

    (void)state;
    join_as(&ann, ANN);
    worker_join(&older, BOX1, 1);
    worker_join(&newer, BOX1, 2);
    submit(&ann, 1, 1, 1);
    Wl__Envelope *assign = hear(&newer, WL__ENVELOPE__BODY_ASSIGN);

    say_result(&older, assign->assign, false);
    assert_null(hear_within(&newer, QUIET_MS));
    assert_int_equal(done_of(&ann, 1), 0);
    say_worker_hello(&older, 1, 2); /* another process under the same key */
    hear_refusal(&older, CODE_CONFLICT);
    say_result(&newer, assign->assign, false);
    hear_committed(&newer, CODE_OK);
    wire_free(assign);
    disconnect(&ann);
    disconnect(&older);
    disconnect(&newer);
}

static void a_task_is_told_what_the_tasks_before_it_left(void **state)
{
    Wl__DependencyRequest wanted = WL__DEPENDENCY_REQUEST__INIT;
    struct peer_link ann, box;

    (void)state;
    join_as(&ann, ANN);
    worker_join(&box, BOX1, 1);
    submit(&ann, 1, 1, 1);
    Wl__Envelope *first = hear(&box, WL__ENVELOPE__BODY_ASSIGN);
    say_result(&box, first->assign, false);
    hear_committed(&box, CODE_OK);
    Wl__Envelope *second = hear(&box, WL__ENVELOPE__BODY_ASSIGN);
    assert_int_equal(second->assign->lease->step, 1);

    wanted.session = box.session;
    wanted.lease = second->assign->lease;
    wanted.ticket = second->assign->ticket;
    say(&box, &ENVELOPE(DEPENDENCY_REQUEST, dependency_request, &wanted));
    Wl__Envelope *answer = hear(&box, WL__ENVELOPE__BODY_DEPENDENCY_RESULTS);
    assert_int_equal(answer->dependency_results->n_results, 1);
    assert_memory_equal(answer->dependency_results->results[0]->key_out.data,
                        first->assign->key_out.data, 32);
    wire_free(answer);
    wire_free(first);
    wire_free(second);
    disconnect(&ann);
    disconnect(&box);
}

static void who_watches_is_told(void **state)
{
    uint8_t id[16] = {1};
    Wl__Watch watch = WL__WATCH__INIT;
    struct peer_link ann, box;
    uint64_t done = 0;

    (void)state;
    join_as(&ann, ANN);
    submit(&ann, 1, 1, 1);
    watch.job = (ProtobufCBinaryData){16, id};
    say(&ann, &ENVELOPE(WATCH, watch, &watch));
    Wl__Envelope *notice = hear(&ann, WL__ENVELOPE__BODY_NOTICE);
    assert_int_equal(notice->request, ann.request);
    assert_int_equal(notice->notice->n_why, 2);
    assert_non_null(strstr(notice->notice->why[0], "no worker is connected"));
    assert_non_null(strstr(notice->notice->why[1], "beauty"));
    wire_free(notice);

    worker_join(&box, BOX1, 1);
    while (done < 2) {
        Wl__Envelope *assign = hear(&box, WL__ENVELOPE__BODY_ASSIGN);
        say_result(&box, assign->assign, false);
        hear_committed(&box, CODE_OK);
        wire_free(assign);
        for (uint64_t seen = done; seen == done;) {
            notice = hear(&ann, WL__ENVELOPE__BODY_NOTICE);
            seen = notice->notice->row->done;
            wire_free(notice);
            if (seen > done) {
                done = seen;
                break;
            }
        }
    }
    disconnect(&ann);
    disconnect(&box);
}

static enum code copy_of_box1_joins(void)
{
    struct peer_link copy;
    enum code code = CODE_OK;

    connect_as(&copy, BOX1);
    say_worker_hello(&copy, 2, 9);
    Wl__Envelope *answer = hear_within(&copy, PATIENCE_MS);
    assert_non_null(answer);
    if (answer->body_case == WL__ENVELOPE__BODY_REFUSAL)
        code = (enum code)answer->refusal->code;
    wire_free(answer);
    disconnect(&copy);
    return code;
}

static void a_copy_of_a_live_worker_is_refused_until_the_worker_is_gone(void **state)
{
    int64_t until_ns = clock_monotonic_ns() + PATIENCE_MS * NS_PER_MS;
    struct peer_link box;

    (void)state;
    worker_join(&box, BOX1, 1);
    assert_int_equal(copy_of_box1_joins(), CODE_CONFLICT);
    wire_free(
        hear(&box, WL__ENVELOPE__BODY_BEAT)); /* asked whether it is there: it is, undisturbed */
    disconnect(&box);
    while (copy_of_box1_joins() == CODE_CONFLICT)
        assert_true(clock_monotonic_ns() < until_ns);
}

/* Every second frame. */
static void say_cancel(struct peer_link *link, uint8_t request, int64_t first, int64_t last)
{
    uint8_t request_id[16] = {request}, job_id[16] = {1};
    Wl__Range range = WL__RANGE__INIT, *ranges[] = {&range};
    Wl__Verb verb = WL__VERB__INIT;

    range.first = first;
    range.last = last;
    range.step = 2;
    verb.request_id = (ProtobufCBinaryData){16, request_id};
    verb.job = (ProtobufCBinaryData){16, job_id};
    verb.kind = WL__VERB_KIND__VERB_CANCEL;
    verb.frames = ranges;
    verb.n_frames = 1;
    say(link, &ENVELOPE(VERB, verb, &verb));
}

static void every_second_frame_of_a_thousand_may_be_named(void **state)
{
    struct peer_link ann;

    (void)state;
    join_as(&ann, ANN);
    submit(&ann, 1, 1, 100000);
    say_cancel(&ann, 2, 1, 1000);
    Wl__Envelope *done = hear(&ann, WL__ENVELOPE__BODY_DONE);
    assert_int_equal(done->done->tasks, 1000); /* in each of two steps */
    wire_free(done);
    say_cancel(&ann, 3, 1, 100000);
    Wl__Envelope *refusal = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(refusal->refusal->code, CODE_INVALID);
    assert_non_null(strstr(refusal->refusal->why, "pieces"));
    wire_free(refusal);
    disconnect(&ann);
}

static void what_is_no_message_is_refused_and_the_link_lives_on(void **state)
{
    struct peer_link ann;
    zmq_msg_t message;

    (void)state;
    join_as(&ann, ANN);
    assert_int_equal(zmq_msg_init_size(&message, 3), 0);
    memcpy(zmq_msg_data(&message), "\xff\xff\xff", 3);
    assert_int_equal(link_send(ann.socket, NULL, &message, NULL), 0);
    Wl__Envelope *refusal = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(refusal->refusal->code, CODE_INVALID);
    wire_free(refusal);
    submit(&ann, 1, 1, 2);
    disconnect(&ann);
}

static void say_twice(struct peer_link *link, Wl__Envelope *envelope)
{
    struct wire_packet packet = {0};
    zmq_msg_t message;

    for (int i = 0; i < 2; i++) {
        envelope->request = ++link->request;
        assert_int_equal(wire_packet_add(&packet, envelope), 0);
    }
    assert_int_equal(wire_packet_message(&packet, &message), 0);
    assert_int_equal(link_send(link->socket, NULL, &message, NULL), 0);
    wire_packet_deinit(&packet);
}

static void a_worker_may_say_several_things_in_one_message_and_a_studio_may_not(void **state)
{
    Wl__JobsRequest jobs = WL__JOBS_REQUEST__INIT;
    Wl__Beat beat = WL__BEAT__INIT;
    struct peer_link ann, box;

    (void)state;
    worker_join(&box, BOX1, 1);
    beat.session = box.session;
    say_twice(&box, &ENVELOPE(BEAT, beat, &beat));
    for (uint64_t i = 0; i < 2; i++) {
        Wl__Envelope *answer = hear(&box, WL__ENVELOPE__BODY_BEAT);

        assert_int_equal(answer->request, box.request - 1 + i);
        wire_free(answer);
    }
    join_as(&ann, ANN);
    say_twice(&ann, &ENVELOPE(JOBS_REQUEST, jobs_request, &jobs));
    Wl__Envelope *refusal = hear(&ann, WL__ENVELOPE__BODY_REFUSAL);
    assert_int_equal(refusal->refusal->code, CODE_INVALID);
    wire_free(refusal);
    say_submit(&ann, 1, 1, 2);
    Wl__Envelope *next = hear_within(&ann, PATIENCE_MS); /* the others are not answered */
    assert_true(next && next->body_case == WL__ENVELOPE__BODY_ACCEPTED);
    wire_free(next);
    disconnect(&ann);
    disconnect(&box);
}

/* The worker beats on; the broker has no room for another record, so it does not read. */
static void beat_for(struct peer_link *box, int64_t ns)
{
    int64_t until_ns = clock_monotonic_ns() + ns;
    Wl__Beat beat = WL__BEAT__INIT;

    beat.session = box->session;
    while (clock_monotonic_ns() < until_ns) {
        Wl__Envelope *answer = NULL;

        say(box, &ENVELOPE(BEAT, beat, &beat));
        answer = hear_within(box, 200);
        if (answer)
            wire_free(answer);
    }
}

static void a_broker_whose_disk_stalls_takes_no_worker_for_lost(void **state)
{
    Wl__Started started = WL__STARTED__INIT;
    char path[128];
    struct peer_link ann, box;
    sqlite3 *disk = NULL;

    (void)state;
    assert_int_equal(broker_stop(SIGTERM), 0);
    broker.lease_ns = 2 * NS_PER_S;
    broker_start();
    broker.lease_ns = 0;
    join_as(&ann, ANN);
    submit(&ann, 1, 1, 40000);
    worker_join(&box, BOX1, 1);
    Wl__Envelope *assign = hear(&box, WL__ENVELOPE__BODY_ASSIGN);

    started.session = box.session;
    started.lease = assign->assign->lease;
    started.ticket = assign->assign->ticket;
    say(&box, &ENVELOPE(STARTED, started, &started));
    beat_for(&box, 1 * NS_PER_S);
    snprintf(path, sizeof path, "%s/state.db", broker.state);
    assert_int_equal(sqlite3_open(path, &disk), SQLITE_OK);
    assert_int_equal(sqlite3_exec(disk, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (uint8_t i = 0; i < 4; i++) { /* 16000 records each: two batches at the store, one full */
        say_cancel(&ann, 2 + i, 2 + i % 2 + i / 2 * 16000, 16001 + i / 2 * 16000);
        beat_for(&box, NS_PER_S / 4);
    }
    beat_for(&box, 4 * NS_PER_S);
    assert_int_equal(sqlite3_exec(disk, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    for (uint8_t i = 0; i < 4; i++)
        wire_free(hear(&ann, WL__ENVELOPE__BODY_DONE));
    sqlite3_close(disk);
    say_show(&ann, 1);
    Wl__Envelope *show = hear(&ann, WL__ENVELOPE__BODY_SHOW);
    assert_int_equal(show->show->row->running, 1);
    assert_int_equal(show->show->row->attempts_failed, 0);
    wire_free(show);
    wire_free(assign);
    disconnect(&ann);
    disconnect(&box);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_unknown_key_is_refused_at_the_door),
        TEST(a_key_that_is_forbidden_is_refused_on_a_live_connection),
        TEST(hello_comes_first_and_names_both_protocols_where_they_differ),
        TEST(a_role_says_only_what_is_its_own),
        TEST(an_operator_alone_tends_workers_and_once_a_request),
        TEST(a_studio_learns_what_there_is_to_render_with_and_no_more),
        TEST(a_foreign_job_is_answered_exactly_as_an_unknown_one),
        TEST(an_upload_is_seen_by_its_studio_until_the_job_is_accepted),
        TEST(an_upload_that_was_cancelled_is_not_accepted),
        TEST(the_same_request_gets_the_same_answer_after_a_kill_too),
        TEST(an_edit_is_done_once_and_outlives_a_kill),
        TEST(a_lease_after_an_edit_has_the_new_recipe),
        TEST(refs_that_the_vault_lacks_are_named),
        TEST(a_result_counts_with_its_own_ticket_only),
        TEST(an_older_session_is_not_heard),
        TEST(a_task_is_told_what_the_tasks_before_it_left),
        TEST(who_watches_is_told),
        TEST(a_copy_of_a_live_worker_is_refused_until_the_worker_is_gone),
        TEST(every_second_frame_of_a_thousand_may_be_named),
        TEST(what_is_no_message_is_refused_and_the_link_lives_on),
        TEST(a_worker_may_say_several_things_in_one_message_and_a_studio_may_not),
        TEST(a_broker_whose_disk_stalls_takes_no_worker_for_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

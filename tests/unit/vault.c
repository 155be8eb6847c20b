/* vault.c - a block that was acknowledged is there, whole, and for its own studio only.
 *
 * fdatasync and fsync are the program's own here: they count, and fail on demand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <broker/vault/vault.h>

static atomic_int fail_data, fail_folder, syncs, file_systems;
static atomic_bool hold_data; /* fdatasync waits for sync_may_go */
static sem_t sync_may_go;
static atomic_bool starve; /* after the next fdatasync no file can be opened */

/* The limit that was before. With 1 no file can be opened (0 is there), and poll still takes one.
 */
static struct rlimit files_limit(rlim_t files)
{
    struct rlimit old, limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    limit = old;
    limit.rlim_cur = files;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return old;
}

int fdatasync(int fd)
{
    atomic_fetch_add(&syncs, 1);
    if (atomic_load(&fail_data)) {
        errno = EIO;
        return -1;
    }
    if (atomic_load(&hold_data))
        sem_wait(&sync_may_go);
    if (atomic_load(&starve))
        (void)files_limit(1);
    return (int)syscall(SYS_fdatasync, fd);
}

int syncfs(int fd)
{
    atomic_fetch_add(&file_systems, 1);
    return (int)syscall(SYS_syncfs, fd);
}

int fsync(int fd)
{
    atomic_fetch_add(&syncs, 1);
    if (atomic_load(&fail_folder)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

/* ---- helpers ---- */

static char folder[64];
static struct vault *vault;
static struct vault_port *port;
static const struct studio_id north = {1}, south = {2};

static void open_vault(void)
{
    assert_int_equal(vault_open(folder, 3, &vault), 0);
    assert_int_equal(vault_port_new(vault, &port), 0);
}

static void close_vault(void)
{
    vault_close(vault);
    vault_port_free(port);
    vault = NULL;
    port = NULL;
}

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/westlight-vault-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    open_vault();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&fail_data, 0);
    atomic_store(&fail_folder, 0);
    if (vault)
        close_vault();
    return folder_remove(folder);
}

static struct vault_request *next_completed(void)
{
    for (;;) {
        struct vault_request *request = vault_completed(port);
        if (request)
            return request;
        struct pollfd poll_fd = {.fd = vault_port_fd(port), .events = POLLIN};
        assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    }
}

static int run(struct vault_request *request)
{
    request->port = port;
    vault_submit(vault, request);
    assert_ptr_equal(next_completed(), request);
    if (request->kind == VAULT_PIN)
        vault_unpin(vault, request);
    return request->result;
}

static int put(struct studio_id studio, const void *data, size_t size, bool plain,
               struct block_id *ret_id)
{
    digest(data, size, ret_id);
    uint8_t *copy = vault_buffer(size);
    memcpy(copy, data, size);
    struct vault_request request = {.kind = VAULT_PUT,
                                    .studio = studio,
                                    .ids = ret_id,
                                    .n_ids = 1,
                                    .data = copy,
                                    .size = size,
                                    .plain = plain};
    int r = run(&request);
    assert_null(request.data);
    return r;
}

static int get(struct studio_id studio, const struct job_id *job, struct block_id id,
               const char *expected)
{
    struct vault_request request = {.kind = VAULT_GET, .studio = studio, .ids = &id, .n_ids = 1};
    if (job)
        request.job = *job;
    int r = run(&request);
    if (r == 0) {
        assert_int_equal(request.size, strlen(expected));
        assert_memory_equal(request.data, expected, request.size);
    } else {
        assert_null(request.data);
    }
    vault_buffer_free(request.data, request.size);
    return r;
}

static bool has(struct studio_id studio, struct block_id id)
{
    uint8_t missing = 0xff;
    struct vault_request request = {
        .kind = VAULT_HAVE, .studio = studio, .ids = &id, .n_ids = 1, .missing = &missing};
    assert_int_equal(run(&request), 0);
    return missing == 0;
}

static struct block_id put_text(struct studio_id studio, const char *text)
{
    struct block_id id;
    assert_int_equal(put(studio, text, strlen(text), false, &id), 0);
    return id;
}

static struct block_id put_refs(struct studio_id studio, const struct block_id *ids, uint32_t n)
{
    uint8_t data[8 + 32 * 8] = {'W', 'R', '1', 0, (uint8_t)n};
    struct block_id id;
    memcpy(data + 8, ids, n * sizeof *ids);
    assert_int_equal(put(studio, data, 8 + 32 * n, true, &id), 0);
    return id;
}

static void block_file(struct studio_id studio, struct block_id id, char path[256])
{
    char hex[65];
    hex_encode(id.bytes, 32, hex);
    snprintf(path, 256, "%s/%u/%.2s/%s", folder, studio.value, hex, hex + 2);
}

/* ---- tests ---- */

static void a_block_comes_back_to_its_own_studio_only(void **state)
{
    struct block_id id = put_text(north, "sealed");
    assert_int_equal(get(north, NULL, id, "sealed"), 0);
    assert_true(has(north, id));
    assert_int_equal(get(south, NULL, id, ""), VAULT_E_MISSING);
    assert_false(has(south, id));
    close_vault();
    open_vault();
    assert_int_equal(get(north, NULL, id, "sealed"), 0);
    assert_true(has(north, id));
}

static void have_marks_each_missing_id(void **state)
{
    struct block_id ids[20];
    uint8_t missing[3];
    for (uint8_t i = 0; i < 20; i++) {
        memset(&ids[i], i + 1, 32);
        if (i % 3 == 0) {
            char text[2] = {(char)i, 0};
            ids[i] = put_text(north, i ? text : "zero");
        }
    }
    struct vault_request request = {
        .kind = VAULT_HAVE, .studio = north, .ids = ids, .n_ids = 20, .missing = missing};
    assert_int_equal(run(&request), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(missing[i / 8] >> i % 8 & 1, i % 3 != 0);
}

/* Past the page cache, through it, and where one becomes the other. */
static void blocks_of_every_size_come_back_as_they_were(void **state)
{
    static const size_t sizes[] = {1, 4096, 65535, 65536, 65537, 69632, 1 << 20, LIMIT_SEALED_BYTES};
    static uint8_t data[LIMIT_SEALED_BYTES];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * i >> 7);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct block_id id;

        assert_int_equal(put(north, data, sizes[i], false, &id), 0);
        for (int time = 0; time < 3; time++) {
            struct vault_request request = {
                .kind = VAULT_GET, .studio = north, .ids = &id, .n_ids = 1};
            char path[256];
            struct stat status;

            assert_int_equal(run(&request), 0);
            assert_int_equal(request.size, sizes[i]);
            assert_memory_equal(request.data, data, sizes[i]);
            vault_buffer_free(request.data, request.size);
            block_file(north, id, path);
            assert_int_equal(stat(path, &status), 0);
            assert_int_equal(status.st_size, sizes[i]);
        }
    }
}

static void bytes_that_are_not_their_name_are_refused(void **state)
{
    struct block_id id = {{1}};
    uint8_t *data = malloc(4);
    memcpy(data, "evil", 4);
    struct vault_request request = {
        .kind = VAULT_PUT, .studio = north, .ids = &id, .n_ids = 1, .data = data, .size = 4};
    assert_int_equal(run(&request), VAULT_E_ID);
    assert_false(has(north, id));
    assert_int_equal(put(north, "no refs block", 13, true, &id), VAULT_E_ID);
    assert_false(has(north, id));
}

static void a_damaged_block_is_never_served_and_can_be_sent_again(void **state)
{
    struct block_id id = put_text(north, "sealed");
    char path[256];
    block_file(north, id, path);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "X", 1, 2), 1);
    close(fd);
    assert_int_equal(get(north, NULL, id, ""), VAULT_E_CORRUPT);
    assert_false(has(north, id));
    assert_int_equal(get(north, NULL, id, ""), VAULT_E_CORRUPT); /* the next is told the same */
    put_text(north, "sealed");
    assert_int_equal(get(north, NULL, id, "sealed"), 0);
    assert_int_equal(truncate(path, 0), 0); /* as a power cut may leave it */
    assert_false(has(north, id));
    put_text(north, "sealed");
    assert_int_equal(get(north, NULL, id, "sealed"), 0);
}

static void puts_that_wait_share_the_syncs_of_folders(void **state)
{
    enum { N = 400 };
    static struct vault_request requests[N];
    static struct block_id ids[N];
    put_text(north, "makes the folders");
    atomic_store(&syncs, 0);
    for (uint32_t i = 0; i < N; i++) {
        uint8_t *data = malloc(sizeof i);
        memcpy(data, &i, sizeof i);
        digest(data, sizeof i, &ids[i]);
        requests[i] = (struct vault_request){.kind = VAULT_PUT,
                                             .studio = north,
                                             .port = port,
                                             .ids = &ids[i],
                                             .n_ids = 1,
                                             .data = data,
                                             .size = sizeof i};
        vault_submit(vault, &requests[i]);
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(next_completed()->result, 0);
    assert_in_range(atomic_load(&syncs), N + 1, 2 * N - 10); /* without sharing: 2 N */
    for (int i = 0; i < N; i++)
        assert_true(has(north, ids[i]));

    /* What is there already costs no sync. */
    atomic_store(&syncs, 0);
    struct block_id id;
    uint32_t zero = 0;
    assert_int_equal(put(north, &zero, sizeof zero, false, &id), 0);
    assert_int_equal(atomic_load(&syncs), 0);
}

static void a_failed_sync_is_told_and_nothing_is_promised_after_it(void **state)
{
    struct block_id id, other, early = put_text(north, "early");
    atomic_store(&fail_data, 1);
    assert_int_equal(put(north, "a", 1, false, &id), -EIO);
    atomic_store(&fail_data, 0);
    assert_int_equal(put(north, "b", 1, false, &other), -EIO);
    uint8_t missing = 0;
    struct vault_request request = {
        .kind = VAULT_HAVE, .studio = north, .ids = &id, .n_ids = 1, .missing = &missing};
    assert_int_equal(run(&request), -EIO);
    assert_int_equal(get(north, NULL, early, "early"), 0); /* what was durable is still read */
    close_vault();
    open_vault();
    assert_false(has(north, id));
}

static void a_failed_sync_of_a_folder_is_told_too(void **state)
{
    struct block_id id;
    put_text(north, "makes the folders");
    atomic_store(&fail_folder, 1);
    assert_int_equal(put(north, "a", 1, false, &id), -EIO);
}

static void a_host_that_takes_no_more_says_full_and_recovers(void **state)
{
    struct rlimit old, small = {.rlim_cur = 1000, .rlim_max = RLIM_INFINITY};
    static char large[5000];
    struct block_id id;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    put_text(north, "makes the folders");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int r = put(north, large, sizeof large, false, &id);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(r, VAULT_E_FULL);
    assert_false(has(north, id));
    assert_int_equal(put(north, large, sizeof large, false, &id), 0);
    assert_true(has(north, id));
}

static void a_moment_without_files_is_busy_and_passes(void **state)
{
    struct block_id id, early = put_text(north, "early"), refs = put_refs(north, &early, 1);
    struct job_id job = {{1}};
    struct vault_request pin = {.kind = VAULT_PIN, .studio = north, .ids = &refs, .n_ids = 1};

    vault_job_refs(vault, north, &job, &refs, 1);
    rlim_t files = files_limit(1).rlim_cur;
    int r_put = put(north, "late", 4, false, &id);
    int r_get = get(north, NULL, early, "");
    int r_job = get(north, &job, early, "");
    int r_pin = run(&pin);
    free(pin.absent);
    (void)files_limit(files);
    assert_int_equal(r_put, VAULT_E_BUSY);
    assert_int_equal(r_get, VAULT_E_BUSY);
    assert_int_equal(r_job, VAULT_E_BUSY);
    assert_int_equal(r_pin, VAULT_E_BUSY);

    assert_int_equal(put(north, "late", 4, false, &id), 0);
    assert_int_equal(get(north, &job, early, "early"), 0);
    assert_int_equal(run(&pin), 0);
    free(pin.absent);
}

/* The block has its name by then: that it is durable must not depend on one more open file. */
static void a_folder_that_cannot_be_opened_is_synced_all_the_same(void **state)
{
    struct block_id id;
    put_text(north, "makes the folders");
    rlim_t files = files_limit(64).rlim_cur;
    atomic_store(&file_systems, 0);
    atomic_store(&starve, true);
    int r = put(north, "late", 4, false, &id);
    atomic_store(&starve, false);
    (void)files_limit(files);
    assert_int_equal(r, 0);
    assert_int_equal(atomic_load(&file_systems), 1);
    assert_true(has(north, id));
}

static void what_a_killed_broker_was_writing_is_removed(void **state)
{
    char path[256];
    put_text(north, "makes the folders");
    snprintf(path, sizeof path, "%s/1/put-77", folder);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    close_vault();
    open_vault();
    assert_int_equal(access(path, F_OK), -1);
}

static void pin_names_what_is_absent(void **state)
{
    struct block_id ids[3] = {put_text(north, "one"), {{9}}, {{7}}};
    struct block_id refs[2] = {put_refs(north, ids, 3), {{5}}};
    struct vault_request request = {.kind = VAULT_PIN, .studio = north, .ids = refs, .n_ids = 2};
    assert_int_equal(run(&request), VAULT_E_MISSING);
    assert_int_equal(request.n_absent, 3);
    assert_memory_equal(&request.absent[0], &ids[1], 32);
    assert_memory_equal(&request.absent[1], &ids[2], 32);
    assert_memory_equal(&request.absent[2], &refs[1], 32);
    free(request.absent);

    ids[1] = put_text(north, "two");
    refs[0] = put_refs(north, ids, 2);
    request = (struct vault_request){.kind = VAULT_PIN, .studio = north, .ids = refs, .n_ids = 1};
    assert_int_equal(run(&request), 0);
    assert_int_equal(request.n_absent, 0);
    free(request.absent);

    refs[0] = put_text(north, "this is no refs block");
    request = (struct vault_request){.kind = VAULT_PIN, .studio = north, .ids = refs, .n_ids = 1};
    assert_int_equal(run(&request), VAULT_E_ID);
    free(request.absent);
}

static void pin_wants_what_is_named_beside_in_the_refs(void **state)
{
    struct block_id one = put_text(north, "one"), two = put_text(north, "two"),
                    three = put_text(north, "three");
    struct block_id refs[2] = {put_refs(north, &one, 1), put_refs(north, &two, 1)};
    struct block_id named[2] = {two, one};
    struct vault_request request = {.kind = VAULT_PIN,
                                    .studio = north,
                                    .ids = refs,
                                    .n_ids = 2,
                                    .blocks = named,
                                    .n_blocks = 2};
    assert_int_equal(run(&request), 0);
    free(request.absent);

    /* In the vault, but the sweeper and the workers would not know that it is the job's. */
    struct block_id stray = three;
    request = (struct vault_request){.kind = VAULT_PIN,
                                     .studio = north,
                                     .ids = refs,
                                     .n_ids = 2,
                                     .blocks = &stray,
                                     .n_blocks = 1};
    assert_int_equal(run(&request), VAULT_E_UNNAMED);
    free(request.absent);
}

static void a_job_reads_what_its_refs_name_and_nothing_else(void **state)
{
    struct job_id job = {{1}}, other = {{2}};
    struct block_id one = put_text(north, "one"), two = put_text(north, "two"),
                    three = put_text(north, "three");
    struct block_id first = put_refs(north, &one, 1), second = put_refs(north, &two, 1);

    assert_int_equal(get(north, &job, one, ""), VAULT_E_DENIED);
    vault_job_refs(vault, north, &job, &first, 1);
    assert_int_equal(get(north, &job, one, "one"), 0);
    assert_int_equal(get(north, &job, two, ""), VAULT_E_DENIED);
    assert_int_equal(get(north, &other, one, ""), VAULT_E_DENIED);
    assert_int_equal(get(south, &job, one, ""), VAULT_E_DENIED);
    vault_job_refs(vault, north, &job, &second, 1); /* a result was committed */
    assert_int_equal(get(north, &job, two, "two"), 0);
    assert_int_equal(get(north, &job, three, ""), VAULT_E_DENIED);

    struct vault_request request = {
        .kind = VAULT_GET, .studio = north, .job = job, .ids = &first, .n_ids = 1};
    assert_int_equal(run(&request), 0); /* the refs block itself */
    vault_buffer_free(request.data, request.size);
}

static void many_jobs_keep_their_own_reach(void **state)
{
    struct block_id id = put_text(north, "one"), refs = put_refs(north, &id, 1);
    for (uint32_t i = 0; i < 3000; i++) {
        struct job_id job = {{(uint8_t)i, (uint8_t)(i >> 8), 1}};
        if (i % 2)
            vault_job_refs(vault, north, &job, &refs, 1);
    }
    for (uint32_t i = 0; i < 40; i++) {
        struct job_id job = {{(uint8_t)i, (uint8_t)(i >> 8), 1}};
        assert_int_equal(get(north, &job, id, "one"), i % 2 ? 0 : VAULT_E_DENIED);
    }
}

/* Ids that differ in their last two bytes, or in the first two. */
static clock_t time_of_jobs(uint8_t kind, const struct block_id *refs)
{
    const unsigned n = 1 << 15;
    clock_t begun = clock();

    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < n; i++) {
            struct job_id job = {{[7] = kind}};

            memcpy(job.bytes + (kind ? 14 : 0), &(uint16_t){(uint16_t)i}, 2);
            if (pass == 0)
                vault_job_refs(vault, north, &job, refs, 1);
            else
                vault_job_forget(vault, north, &job);
        }
    return clock() - begun;
}

static void ids_that_a_studio_chooses_cost_no_more_than_others(void **state)
{
    struct block_id id = put_text(north, "one"), refs = put_refs(north, &id, 1);
    clock_t first = time_of_jobs(0, &refs), last = time_of_jobs(1, &refs);

    assert_true(first < 8 * last && last < 8 * first);
}

static void open_with_threads(unsigned threads)
{
    close_vault();
    assert_int_equal(vault_open(folder, threads, &vault), 0);
    assert_int_equal(vault_port_new(vault, &port), 0);
}

/* Of three results, one a call. */
static struct block_id old_refs[3];
static unsigned history_calls;

static int old_results(void *user, const struct job_id *job, uint64_t *after,
                       struct block_id **ret_refs, size_t *ret_n)
{
    assert_ptr_equal(user, old_refs);
    assert_int_equal(job->bytes[0], 1);
    assert_int_equal(*after, history_calls++);
    if (*after == 3)
        return 0;
    *ret_refs = malloc(sizeof **ret_refs);
    **ret_refs = old_refs[(*after)++];
    *ret_n = 1;
    return 0;
}

static void what_results_of_an_earlier_life_name_is_asked_for_when_it_is_wanted(void **state)
{
    struct job_id job = {{1}}, other = {{2}};
    struct block_id blocks[3], refs, unnamed = put_text(north, "unnamed"), mine;

    for (uint8_t i = 0; i < 3; i++) {
        blocks[i] = put_text(north, (const char[]){'a' + i, 0});
        old_refs[i] = put_refs(north, &blocks[i], 1);
    }
    mine = put_text(north, "mine");
    refs = put_refs(north, &mine, 1);
    open_with_threads(1);
    vault_history_by(vault, old_results, old_refs);
    history_calls = 0;
    vault_job_refs(vault, north, &job, &refs, 1);
    vault_job_history(vault, north, &job);
    vault_job_refs(vault, north, &other, &refs, 1);
    assert_int_equal(get(north, &job, mine, "mine"), 0);
    assert_int_equal(history_calls, 0);
    assert_int_equal(get(north, &job, blocks[1], "b"), 0);
    assert_int_equal(history_calls, 2);
    assert_int_equal(get(north, &other, blocks[1], "b"), VAULT_E_DENIED);
    assert_int_equal(get(north, &job, unnamed, "unnamed"), VAULT_E_DENIED);
    assert_int_equal(history_calls, 4); /* to its end, once */
    assert_int_equal(get(north, &job, unnamed, "unnamed"), VAULT_E_DENIED);
    assert_int_equal(get(north, &job, blocks[2], "c"), 0);
    assert_int_equal(history_calls, 4);
}

/* The thread that takes puts hangs in the sync of this one, until it is let go. */
static void occupy(struct vault_request *put, struct block_id *id)
{
    static char text[] = "slow0"; /* another each time: what is there needs no sync */

    text[4]++;
    *put = (struct vault_request){.kind = VAULT_PUT, .studio = north, .ids = id, .n_ids = 1};
    put->data = (uint8_t *)strdup(text);
    put->size = strlen(text);
    put->port = port;
    digest(put->data, put->size, id);
    assert_int_equal(sem_init(&sync_may_go, 0, 0), 0);
    atomic_store(&hold_data, true);
    vault_submit(vault, put);
}

static void let_go(void)
{
    atomic_store(&hold_data, false);
    sem_post(&sync_may_go);
}

/* Submitted in this order; the second completes first. `before` them, where there is one, keeps the
 * only thread busy until both are there. */
static void assert_overtakes(struct vault_request *slow, struct vault_request *quick,
                             struct vault_request *before)
{
    slow->port = quick->port = port;
    vault_submit(vault, slow);
    vault_submit(vault, quick);
    if (before) {
        let_go();
        assert_ptr_equal(next_completed(), before);
        sem_destroy(&sync_may_go);
    }
    assert_ptr_equal(next_completed(), quick);
    assert_int_equal(quick->result, 0);
    free(quick->data);
}

/* One thread has both: a turn is one refs block. */
static void a_job_with_many_refs_holds_up_nobody(void **state)
{
    enum { REFS = 8 };
    struct job_id job = {{1}};
    struct block_id one = put_text(north, "one"), two = put_text(south, "two"), refs[REFS], id;
    struct vault_request before;

    for (uint8_t i = 0; i < REFS; i++) {
        struct block_id ids[2] = {one, {{i}}};
        refs[i] = put_refs(north, ids, 2);
    }
    open_with_threads(1);
    vault_job_refs(vault, north, &job, refs, REFS);
    struct block_id stranger = {{0xee}};
    struct vault_request bad = {
        .kind = VAULT_GET, .studio = north, .job = job, .ids = &stranger, .n_ids = 1};
    struct vault_request good = {.kind = VAULT_GET, .studio = south, .ids = &two, .n_ids = 1};
    occupy(&before, &id);
    assert_overtakes(&bad, &good, &before);
    assert_ptr_equal(next_completed(), &bad);
    assert_int_equal(bad.result, VAULT_E_DENIED);

    struct vault_request pin = {.kind = VAULT_PIN, .studio = north, .ids = refs, .n_ids = REFS};
    good = (struct vault_request){.kind = VAULT_GET, .studio = south, .ids = &two, .n_ids = 1};
    occupy(&before, &id);
    assert_overtakes(&pin, &good, &before);
    assert_ptr_equal(next_completed(), &pin);
    vault_unpin(vault, &pin);
    assert_int_equal(pin.result, VAULT_E_MISSING);
    assert_int_equal(pin.n_absent, REFS);
    free(pin.absent);
}

static void reads_wait_for_no_pin(void **state)
{
    struct block_id one = put_text(north, "one"), refs = put_refs(north, &one, 1), id;
    struct vault_request pin = {.kind = VAULT_PIN, .studio = north, .ids = &refs, .n_ids = 1};
    struct vault_request get = {.kind = VAULT_GET, .studio = north, .ids = &one, .n_ids = 1};
    struct vault_request slow;

    open_with_threads(2);
    occupy(&slow, &id); /* the one thread that takes puts and pins */
    assert_overtakes(&pin, &get, NULL);
    let_go();
    for (int i = 0; i < 2; i++)
        assert_int_equal(next_completed()->result, 0);
    vault_unpin(vault, &pin);
    free(pin.absent);
    sem_destroy(&sync_may_go);
}

static void files_are_for_their_owner_only(void **state)
{
    char path[256];
    struct stat status;
    block_file(north, put_text(north, "sealed"), path);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    snprintf(path, sizeof path, "%s/1", folder);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_block_comes_back_to_its_own_studio_only),
        T(have_marks_each_missing_id),
        T(blocks_of_every_size_come_back_as_they_were),
        T(bytes_that_are_not_their_name_are_refused),
        T(a_damaged_block_is_never_served_and_can_be_sent_again),
        T(puts_that_wait_share_the_syncs_of_folders),
        T(a_failed_sync_is_told_and_nothing_is_promised_after_it),
        T(a_failed_sync_of_a_folder_is_told_too),
        T(a_host_that_takes_no_more_says_full_and_recovers),
        T(a_moment_without_files_is_busy_and_passes),
        T(a_folder_that_cannot_be_opened_is_synced_all_the_same),
        T(what_a_killed_broker_was_writing_is_removed),
        T(pin_names_what_is_absent),
        T(pin_wants_what_is_named_beside_in_the_refs),
        T(a_job_reads_what_its_refs_name_and_nothing_else),
        T(many_jobs_keep_their_own_reach),
        T(ids_that_a_studio_chooses_cost_no_more_than_others),
        T(what_results_of_an_earlier_life_name_is_asked_for_when_it_is_wanted),
        T(a_job_with_many_refs_holds_up_nobody),
        T(reads_wait_for_no_pin),
        T(files_are_for_their_owner_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

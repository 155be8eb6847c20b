/* What fetch does with a file that is there already: its own, a person's, another frame's. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <client/homing.h>

/* One block holds every content; a file is a piece of it. */
static const char BODY[] = "version one!version two!VERSION ONE!";
enum { PIECE = 12 };

struct seen {
    unsigned files, skipped, results;
    char task_name[64], path[512];
};

struct fixture {
    char folder[64];
    struct westlight *westlight;
    struct westlight_fetch fetch;
    struct homing homing;
    struct seen seen;
};

static int on_file(void *user, const struct westlight_fetched *file)
{
    struct seen *seen = user;
    seen->files++;
    seen->skipped += file->skipped;
    snprintf(seen->task_name, sizeof(seen->task_name), "%s", file->task_name);
    snprintf(seen->path, sizeof(seen->path), "%s", file->path);
    return 0;
}

static int on_result(void *user, const struct westlight_fetched *file)
{
    ((struct seen *)user)->results++;
    return 0;
}

static struct look_steps *one_step(void)
{
    struct look_steps *steps = calloc(1, sizeof(*steps));
    const struct space_range range = {1, 10, 1};

    steps->n = 1;
    steps->names = calloc(1, sizeof(*steps->names));
    steps->names[0] = strdup("beauty");
    steps->spaces = calloc(1, sizeof(*steps->spaces));
    space_init(steps->spaces);
    assert_int_equal(space_add_ints(steps->spaces, "Frame", 0, 1, false, &range, 1), 0);
    assert_int_equal(space_seal(steps->spaces), 0);
    return steps;
}

static void declare(struct homing *homing, const char *const *paths, size_t n)
{
    Wl__Output outputs[4], *pointers[4];
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT, *steps = &step;
    Wl__Recipe recipe = WL__RECIPE__INIT;

    for (size_t i = 0; i < n; i++) {
        wl__output__init(&outputs[i]);
        outputs[i].path = (char *)paths[i];
        pointers[i] = &outputs[i];
    }
    step.outputs = pointers;
    step.n_outputs = n;
    recipe.steps = &steps;
    recipe.n_steps = 1;
    assert_int_equal(homing_places(homing, &recipe), 0);
}

/* A new homing onto the same folder, as another call of westlight_fetch makes it. */
static void begin(struct fixture *fixture, const char *const *outputs, size_t n)
{
    struct homing *homing = &fixture->homing;

    *homing = (struct homing){.westlight = fixture->westlight,
                              .fetch = &fixture->fetch,
                              .id = "0123",
                              .blocks.westlight = fixture->westlight};
    fixture->seen = (struct seen){0};
    homing->reader.blocks = &homing->blocks;
    assert_int_equal(bytes_append(&homing->reader.opened, BODY, sizeof(BODY) - 1), 0);
    homing->reader.has_opened = true; /* under an id of zeros */
    homing->folder = strdup(fixture->folder);
    homing->fd = open(fixture->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    homing->steps = one_step();
    declare(homing, outputs, n);
    assert_int_equal(receipts_open(&homing->receipts, fixture->folder), 0);
}

static const char *const ONE[] = {"/renders/out"};

static void again(struct fixture *fixture)
{
    homing_deinit(&fixture->homing);
    begin(fixture, ONE, 1);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/westlight-fetch-XXXXXX");
    if (!mkdtemp(fixture->folder))
        return -1;
    setenv("XDG_STATE_HOME", fixture->folder, 1);
    fixture->westlight = calloc(1, sizeof(*fixture->westlight));
    fixture->fetch = (struct westlight_fetch){
        .on_file = on_file, .on_result = on_result, .user = &fixture->seen};
    begin(fixture, ONE, 1);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    homing_deinit(&fixture->homing);
    folder_remove(fixture->folder);
    free(fixture->westlight);
    free(fixture);
    return 0;
}

/* A result of one file per path, with piece `piece` of the body in each. */
static int home(struct fixture *fixture, uint64_t sequence, uint64_t task, uint32_t root,
                uint32_t piece, const char *const *paths, size_t n)
{
    static uint8_t zeros[32];
    Wl__ResultRow row = WL__RESULT_ROW__INIT;
    Wl__Manifest manifest = WL__MANIFEST__INIT;
    Wl__FileEntry entries[4], *files[4];
    Wl__BlockKey block = WL__BLOCK_KEY__INIT;
    Wl__Part part = WL__PART__INIT, *parts = &part;
    struct homing_result result = {.row = &row, .manifest = &manifest};

    block.id = block.key = (ProtobufCBinaryData){32, zeros};
    block.body_bytes = sizeof(BODY) - 1;
    part.block = &block;
    part.offset = piece * PIECE;
    part.length = PIECE;
    for (size_t i = 0; i < n; i++) {
        wl__file_entry__init(&entries[i]);
        entries[i].path = strdup(paths[i]);
        entries[i].root = root;
        entries[i].mode = 0644;
        entries[i].size = PIECE;
        entries[i].parts = &parts;
        entries[i].n_parts = 1;
        files[i] = &entries[i];
    }
    row.sequence = sequence;
    row.task = task;
    manifest.files = files;
    manifest.n_files = n;
    int r = homing_write(&fixture->homing, &result, 1);
    for (size_t i = 0; i < n; i++)
        free(entries[i].path);
    return r;
}

static int home_one(struct fixture *fixture, uint64_t sequence, uint64_t task, uint32_t piece,
                    const char *path)
{
    return home(fixture, sequence, task, 0, piece, &path, 1);
}

static void holds(struct fixture *fixture, const char *path, const char *expected)
{
    char full[256];
    struct bytes data = {0};
    snprintf(full, sizeof(full), "%s/%s", fixture->folder, path);
    assert_int_equal(file_read(full, 1000, &data), 0);
    assert_int_equal(data.size, strlen(expected));
    assert_memory_equal(data.data, expected, data.size);
    bytes_deinit(&data);
}

static void put(struct fixture *fixture, const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof(full), "%s/%s", fixture->folder, path);
    assert_int_equal(file_write(full, text, strlen(text), 0644), 0);
}

static void what_was_written_is_skipped_the_next_time(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(home_one(fixture, 5, 6, 0, "sub/f_0007.png"), 0);
    holds(fixture, "sub/f_0007.png", "version one!");
    assert_int_equal(fixture->seen.skipped, 0);
    assert_int_equal(fixture->seen.results, 1);
    assert_string_equal(fixture->seen.task_name, "frame 7");
    assert_int_equal(fixture->homing.ended[0], 5);
    again(fixture);
    assert_int_equal(home_one(fixture, 5, 6, 0, "sub/f_0007.png"), 0);
    assert_int_equal(fixture->seen.skipped, 1);
    assert_int_equal(fixture->homing.conflicts, 0);
}

static void a_newer_result_of_the_same_task_replaces_it_and_an_older_does_not(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(home_one(fixture, 5, 6, 0, "f.png"), 0);
    assert_int_equal(home_one(fixture, 9, 6, 1, "f.png"), 0);
    holds(fixture, "f.png", "version two!");
    assert_int_equal(home_one(fixture, 5, 6, 0, "f.png"), 0);
    holds(fixture, "f.png", "version two!");
    assert_int_equal(fixture->homing.conflicts, 0);
}

/* From here on it is another job, submitted at that time. */
static void another_job(struct fixture *fixture, const char *id, int64_t submitted_wall_s)
{
    again(fixture);
    strcpy(fixture->homing.id, id);
    fixture->homing.submitted_wall_s = submitted_wall_s;
}

static void
a_newer_jobs_result_replaces_an_older_jobs_and_an_older_ones_only_where_asked(void **state)
{
    struct fixture *fixture = *state;

    another_job(fixture, "aaaa", 100);
    assert_int_equal(home_one(fixture, 90, 6, 0, " f.png"), 0);
    another_job(fixture, "bbbb", 200);
    assert_int_equal(home_one(fixture, 5, 7, 1, " f.png"), 0); /* its sequence says nothing */
    holds(fixture, " f.png", "version two!");
    another_job(fixture, "aaaa", 100);
    assert_int_equal(home_one(fixture, 90, 6, 0, " f.png"), 0);
    assert_int_equal(fixture->homing.conflicts, 1);
    assert_non_null(strstr(fixture->homing.conflict, "newer job, bbbb"));
    holds(fixture, " f.png", "version two!");
    fixture->fetch.replace = true;
    another_job(fixture, "aaaa", 100);
    assert_int_equal(home_one(fixture, 90, 6, 0, " f.png"), 0);
    holds(fixture, " f.png", "version one!");
    put(fixture, " f.png", "painted over");
    another_job(fixture, "cccc", 300);
    assert_int_equal(home_one(fixture, 90, 6, 0, " f.png"), 0);
    assert_int_equal(fixture->homing.conflicts, 1);
    holds(fixture, " f.png", "painted over");
}

static off_t receipts_bytes(struct fixture *fixture)
{
    struct stat status;

    assert_int_equal(fstat(fixture->homing.receipts.file, &status), 0);
    return status.st_size;
}

static void records_that_were_replaced_do_not_pile_up(void **state)
{
    struct fixture *fixture = *state;
    struct receipt receipt = {.job = "0123"};
    struct stat status = {.st_size = 7};

    for (unsigned i = 0; i < 1200; i++) {
        receipt.sequence = i;
        assert_int_equal(receipts_add(&fixture->homing.receipts, &receipt, "f.png", &status), 0);
    }
    off_t before = receipts_bytes(fixture);
    struct receipts meanwhile;
    assert_int_equal(receipts_open(&meanwhile, fixture->folder), 0); /* somebody still adds */
    assert_int_equal(receipts_bytes(fixture), before);
    receipts_deinit(&meanwhile);
    again(fixture);
    assert_in_range(receipts_bytes(fixture), 1, before / 100);
    again(fixture);
    assert_int_equal(receipts_find(&fixture->homing.receipts, "f.png")->sequence, 1199);
}

static void what_a_person_changed_is_left_and_the_rest_comes_home(void **state)
{
    struct fixture *fixture = *state;
    const char *paths[] = {"a.png", "b.png"};

    assert_int_equal(home(fixture, 5, 6, 0, 0, paths, 1), 0);
    put(fixture, "a.png", "painted over");
    again(fixture);
    assert_int_equal(home(fixture, 5, 6, 0, 0, paths, 2), 0);
    holds(fixture, "a.png", "painted over");
    holds(fixture, "b.png", "version one!");
    assert_int_equal(fixture->homing.conflicts, 1);
    assert_non_null(strstr(fixture->homing.conflict, "a.png"));
    assert_int_equal(fixture->seen.files, 1);

    fixture->fetch.force = true;
    again(fixture);
    assert_int_equal(home(fixture, 5, 6, 0, 0, paths, 2), 0);
    holds(fixture, "a.png", "version one!");
    assert_int_equal(fixture->homing.conflicts, 0);
}

static void a_file_nobody_fetched_is_compared(void **state)
{
    struct fixture *fixture = *state;

    put(fixture, "same.png", "version one!");
    put(fixture, "other.png", "VERSION ONE!"); /* of the same size */
    put(fixture, "longer.png", "version one! and more");
    assert_int_equal(home_one(fixture, 5, 6, 0, "same.png"), 0);
    assert_int_equal(fixture->seen.skipped, 1);
    assert_non_null(receipts_find(&fixture->homing.receipts, "same.png"));
    assert_int_equal(fixture->homing.conflicts, 0);
    assert_int_equal(home_one(fixture, 6, 6, 0, "other.png"), 0);
    assert_int_equal(home_one(fixture, 7, 6, 0, "longer.png"), 0);
    assert_int_equal(fixture->homing.conflicts, 2);
    holds(fixture, "other.png", "VERSION ONE!");
    holds(fixture, "longer.png", "version one! and more");
}

static void two_tasks_that_write_one_path_are_both_named(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(home_one(fixture, 5, 2, 0, "f.png"), 0);
    assert_int_equal(home_one(fixture, 6, 3, 0, "f.png"), 0); /* the same content is no harm */
    assert_int_equal(fixture->homing.conflicts, 0);
    assert_int_equal(home_one(fixture, 7, 4, 1, "f.png"), 0);
    assert_int_equal(fixture->homing.conflicts, 1);
    assert_non_null(strstr(fixture->homing.conflict, "frame 3 and frame 5 both write it"));
    holds(fixture, "f.png", "version one!");
}

static void several_output_folders_become_sub_folders(void **state)
{
    struct fixture *fixture = *state;
    const char *outputs[] = {"/renders/beauty", "/renders/depth", "/cache/depth",
                             "/renders/beauty"};
    const char *path = "f.png";

    homing_deinit(&fixture->homing);
    begin(fixture, outputs, 4);
    for (uint32_t root = 0; root < 3; root++)
        assert_int_equal(home(fixture, 5 + root, 1, root, root, &path, 1), 0);
    holds(fixture, "beauty/f.png", "version one!");
    holds(fixture, "depth/f.png", "version two!");
    holds(fixture, "depth-2/f.png", "VERSION ONE!");
    assert_int_equal(home(fixture, 9, 1, 4, 0, &path, 1),
                     WESTLIGHT_E_CORRUPT); /* declared nowhere */
}

static void no_two_output_folders_become_the_same_sub_folder(void **state)
{
    static const char *const cases[][4] = {{"/x/a", "/y/a", "/z/a-2", "/w/a"},
                                           {"/z/a-2", "/x/a", "/y/a", "/w/a"},
                                           {"/x/root", "/", "/y/a", "/y/b"}};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        homing_deinit(&fixture->homing);
        begin(fixture, cases[i], 4);
        for (size_t k = 1; k < 4; k++)
            for (size_t n = 0; n < k; n++)
                assert_string_not_equal(fixture->homing.places[0][k],
                                        fixture->homing.places[0][n]);
    }
}

static void nothing_is_written_through_a_link(void **state)
{
    struct fixture *fixture = *state;
    char link[128];

    snprintf(link, sizeof(link), "%s/out", fixture->folder);
    assert_int_equal(symlink("/tmp", link), 0);
    assert_int_equal(home_one(fixture, 5, 6, 0, "out/westlight-should-not-be.png"), 0);
    assert_int_equal(fixture->homing.conflicts, 1);
    assert_non_null(strstr(fixture->homing.conflict, "out/westlight-should-not-be.png"));
    assert_int_equal(access("/tmp/westlight-should-not-be.png", F_OK), -1);
}

static void a_folder_or_a_file_in_the_way_of_a_path_ends_nothing(void **state)
{
    struct fixture *fixture = *state;
    const char *paths[] = {"a.png", "folder/b.png", "file/c.png", "d/d.png"};
    char folder[128];

    snprintf(folder, sizeof(folder), "%s/a.png", fixture->folder);
    assert_int_equal(folder_make(folder, 0755), 0);
    put(fixture, "file", "a person's");
    assert_int_equal(home(fixture, 5, 6, 0, 0, paths, 4), 0);
    assert_int_equal(fixture->homing.conflicts, 2);
    assert_non_null(strstr(fixture->homing.conflict, "a.png: a folder is in its way"));
    assert_int_equal(fixture->seen.files, 2);
    assert_int_equal(fixture->seen.results, 0); /* it is not all home */
    assert_int_equal(fixture->homing.ended[0], 5);
    holds(fixture, "folder/b.png", "version one!");
    holds(fixture, "d/d.png", "version one!");
    holds(fixture, "file", "a person's");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_written_is_skipped_the_next_time),
        TEST(a_newer_result_of_the_same_task_replaces_it_and_an_older_does_not),
        TEST(a_newer_jobs_result_replaces_an_older_jobs_and_an_older_ones_only_where_asked),
        TEST(records_that_were_replaced_do_not_pile_up),
        TEST(what_a_person_changed_is_left_and_the_rest_comes_home),
        TEST(a_file_nobody_fetched_is_compared),
        TEST(two_tasks_that_write_one_path_are_both_named),
        TEST(several_output_folders_become_sub_folders),
        TEST(no_two_output_folders_become_the_same_sub_folder),
        TEST(nothing_is_written_through_a_link),
        TEST(a_folder_or_a_file_in_the_way_of_a_path_ends_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What the broker knows of a job: found by id or prefix, its key wrapped at rest; and submissions
 * that contradict themselves. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <broker/catalogue.h>

static struct identity_signer signer;
static struct catalogue catalogue;
static uint8_t job_key[32] = {1, 2, 3};

static int setup(void **state)
{
    uint8_t master[32] = {9};

    (void)state;
    identity_signer_init(&signer, master);
    assert_int_equal(catalogue_init(&catalogue, &signer), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    catalogue_deinit(&catalogue);
    return 0;
}

/* A submission of two steps: 4 frames, and one task for each of them. */
struct fixture {
    Wl__Submit submit;
    Wl__BlockRef recipe;
    Wl__Step first, second, *steps[2];
    Wl__SpaceParameter frames, *space[1];
    Wl__Range range, *ranges[1];
    Wl__Dependency dependency, *dependencies[1];
    uint8_t job[16], block[32];
};

static void fixture_init(struct fixture *it, uint8_t a, uint8_t b)
{
    memset(it, 0, sizeof *it);
    wl__submit__init(&it->submit);
    wl__block_ref__init(&it->recipe);
    wl__step__init(&it->first);
    wl__step__init(&it->second);
    wl__space_parameter__init(&it->frames);
    wl__range__init(&it->range);
    wl__dependency__init(&it->dependency);
    it->job[0] = a;
    it->job[1] = b;
    it->range.first = 1;
    it->range.last = 4;
    it->range.step = 1;
    it->ranges[0] = &it->range;
    it->frames.name = (char *)"Frame";
    it->frames.n_ranges = 1;
    it->frames.ranges = it->ranges;
    it->space[0] = &it->frames;
    it->first.n_space = it->second.n_space = 1;
    it->first.space = it->second.space = it->space;
    it->dependency.per = 1;
    it->dependencies[0] = &it->dependency;
    it->second.n_dependencies = 1;
    it->second.dependencies = it->dependencies;
    it->steps[0] = &it->first;
    it->steps[1] = &it->second;
    it->recipe.id = it->recipe.wrapped_key = (ProtobufCBinaryData){32, it->block};
    it->submit.job = (ProtobufCBinaryData){16, it->job};
    it->submit.job_key = (ProtobufCBinaryData){32, job_key};
    it->submit.recipe = &it->recipe;
    it->submit.name = (char *)"shot";
    it->submit.n_steps = 2;
    it->submit.steps = it->steps;
}

static void add(uint8_t a, uint8_t b, uint32_t studio)
{
    struct catalogue_job *entry;
    struct fixture fixture;
    struct job_id job;
    size_t size;
    void *blob;

    fixture_init(&fixture, a, b);
    memcpy(job.bytes, fixture.job, sizeof job.bytes);
    assert_int_equal(catalogue_pack(&catalogue, (struct studio_id){studio}, &fixture.submit, &blob,
                                    &size), 0);
    assert_null(memmem(blob, size, job_key, sizeof job_key));
    assert_int_equal(catalogue_add(&catalogue, &job, (struct studio_id){studio}, blob, size, &entry),
                     0);
    free(blob);
}

static void a_job_is_found_by_its_id_among_many(void **state)
{
    struct job_id job = {{0}};

    (void)state;
    for (unsigned i = 0; i < 2000; i++)
        add((uint8_t)(i >> 8), (uint8_t)i, 1);
    for (unsigned i = 0; i < 2000; i++) {
        job.bytes[0] = (uint8_t)(i >> 8);
        job.bytes[1] = (uint8_t)i;
        struct catalogue_job *entry = catalogue_find(&catalogue, &job);
        assert_non_null(entry);
        assert_memory_equal(&entry->job, &job, sizeof job);
    }
    job.bytes[2] = 1;
    assert_null(catalogue_find(&catalogue, &job));
}

static void a_prefix_may_end_within_a_byte_and_finds_own_jobs_only(void **state)
{
    const uint8_t prefix[16] = {0xab, 0xc0};
    struct job_id found[8];

    (void)state;
    add(0xab, 0xc1, 1);
    add(0xab, 0xcf, 1);
    add(0xab, 0xd0, 1);
    add(0xab, 0xc2, 2);
    assert_int_equal(catalogue_prefix(&catalogue, (struct studio_id){1}, prefix, 3, found, 8), 2);
    assert_int_equal(found[0].bytes[1], 0xc1);
    assert_int_equal(found[1].bytes[1], 0xcf);
    assert_int_equal(catalogue_prefix(&catalogue, (struct studio_id){0}, prefix, 3, found, 8), 3);
    assert_int_equal(catalogue_prefix(&catalogue, (struct studio_id){0}, prefix, 3, found, 2), 2);
    assert_int_equal(catalogue_prefix(&catalogue, (struct studio_id){0}, prefix, 2, found, 8), 4);
}

static void what_a_studio_finds_does_not_depend_on_what_others_have(void **state)
{
    const uint8_t prefix[16] = {0xa0};
    struct job_id job = {{0xaf}}, foreign = {{0xa0}}, found[8];

    (void)state;
    for (unsigned i = 0; i < 2000; i++)
        add((uint8_t)(0xa0 + i / 256), (uint8_t)i, 1 + i % 2);
    add(0xaf, 0, 3);
    assert_int_equal(catalogue_prefix(&catalogue, (struct studio_id){3}, prefix, 1, found, 8), 1);
    assert_memory_equal(&found[0], &job, sizeof job);
    assert_non_null(catalogue_own(&catalogue, (struct studio_id){3}, &job));
    assert_null(catalogue_own(&catalogue, (struct studio_id){3}, &foreign));
    assert_null(catalogue_own(&catalogue, (struct studio_id){0}, &job));
    catalogue_remove(&catalogue, &job);
    assert_null(catalogue_own(&catalogue, (struct studio_id){3}, &job));
}

static void a_job_key_comes_back_with_its_own_master_key_only(void **state)
{
    const uint8_t other_master[32] = {8};
    struct identity_signer other;
    const uint8_t *key;

    (void)state;
    add(1, 1, 1);
    identity_signer_init(&other, other_master);
    catalogue.signer = &other;
    assert_true(catalogue_key(&catalogue, catalogue.root, &key) < 0);
    catalogue.signer = &signer;
    assert_int_equal(catalogue_key(&catalogue, catalogue.root, &key), 0);
    assert_memory_equal(key, job_key, sizeof job_key);
}

static void a_stored_submission_that_is_none_is_refused(void **state)
{
    struct job_id job = {{1}};
    struct catalogue_job *entry;

    (void)state;
    assert_int_equal(catalogue_add(&catalogue, &job, (struct studio_id){1}, "garbage", 7, &entry),
                     -EBADMSG);
    assert_null(catalogue_find(&catalogue, &job));
}

static int spec_of(struct fixture *fixture)
{
    struct job_spec spec;
    char why[256] = "";
    int r = catalogue_spec(&fixture->submit, (struct studio_id){1}, &spec, why, sizeof why);

    if (r == 0)
        catalogue_spec_deinit(&spec);
    else
        assert_memory_equal(why, "step 2 ", 7);
    return r;
}

static void a_step_depends_backward_and_task_by_task_evenly(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_init(&fixture, 1, 1);
    assert_int_equal(spec_of(&fixture), 0);
    fixture.dependency.per = 2;
    assert_int_equal(spec_of(&fixture), CATALOGUE_E_INVALID);
    fixture.dependency.per = 0;
    assert_int_equal(spec_of(&fixture), 0);
    fixture.dependency.step = 1;
    assert_int_equal(spec_of(&fixture), CATALOGUE_E_INVALID);
    fixture.dependency.step = 7;
    assert_int_equal(spec_of(&fixture), CATALOGUE_E_INVALID);
}

static int hash_order(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;

    return one < other ? -1 : one > other;
}

/* Ids of which the second half makes up for the first, were the multiplier known. */
static void chosen_ids_do_not_share_a_hash(void **state)
{
    static uint64_t hashes[1 << 16];

    (void)state;
    for (uint64_t i = 0; i < ARRAY_SIZE(hashes); i++) {
        uint64_t first = i >> 8, second = i & 255;
        uint64_t id[2] = {first << 56 | 7, (second << 56 | second << 24) ^ 99};

        hashes[i] = map_hash(&catalogue.by_id, id, sizeof id);
    }
    qsort(hashes, ARRAY_SIZE(hashes), sizeof *hashes, hash_order);
    for (size_t i = 1; i < ARRAY_SIZE(hashes); i++)
        assert_true(hashes[i] != hashes[i - 1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_job_is_found_by_its_id_among_many),
        TEST(a_prefix_may_end_within_a_byte_and_finds_own_jobs_only),
        TEST(what_a_studio_finds_does_not_depend_on_what_others_have),
        TEST(a_job_key_comes_back_with_its_own_master_key_only),
        TEST(a_stored_submission_that_is_none_is_refused),
        TEST(a_step_depends_backward_and_task_by_task_evenly),
        TEST(chosen_ids_do_not_share_a_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

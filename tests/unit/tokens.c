/* tokens.c - a token lets in as many keys as it says, each once, and its text has one form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <broker/store/tokens.h>
#include <proto/base/clock.h>
#include <proto/token.h>

/* ---- the text ---- */

static struct token some_token(void)
{
    struct token token = {.enrol = "tcp://farm.example:7422", .control = "tcp://*:7420"};

    memset(token.enrol_key.bytes, 0xff, 32);
    memset(token.control_key.bytes, 7, 32);
    for (unsigned i = 0; i < 32; i++)
        token.secret[i] = (uint8_t)(200 + i);
    return token;
}

static void a_token_is_read_as_it_was_written(void **state)
{
    struct token token = some_token(), again = {0};
    char text[TOKEN_TEXT_BYTES];

    (void)state;
    token_text(&token, text);
    assert_int_equal(strspn(text + 4, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                      "0123456789-_"),
                     strlen(text) - 4);
    assert_int_equal(token_parse(text, &again), 0);
    assert_memory_equal(&again.enrol_key, &token.enrol_key, 32);
    assert_memory_equal(&again.control_key, &token.control_key, 32);
    assert_memory_equal(again.secret, token.secret, 32);
    assert_string_equal(again.enrol, token.enrol);
    assert_string_equal(again.control, token.control);
}

static void a_slip_in_any_character_is_seen(void **state)
{
    struct token token = some_token(), none = {.enrol = "untouched"};
    char text[TOKEN_TEXT_BYTES], slip[TOKEN_TEXT_BYTES];

    (void)state;
    token_text(&token, text);
    for (size_t i = 0; i < strlen(text); i++)
        for (const char *other = "Aa0_=: "; *other; other++) {
            strcpy(slip, text);
            slip[i] = *other;
            if (text[i] != *other)
                assert_int_equal(token_parse(slip, &none), IDENTITY_E_FORM);
        }
    for (size_t size = 0; size < strlen(text); size++) {
        strcpy(slip, text);
        slip[size] = '\0';
        assert_int_equal(token_parse(slip, &none), IDENTITY_E_FORM);
    }
    strcat(text, "A");
    assert_int_equal(token_parse(text, &none), IDENTITY_E_FORM);
    memset(slip, 'A', sizeof slip - 1);
    memcpy(slip, TOKEN_PREFIX, 4);
    slip[sizeof slip - 1] = '\0';
    assert_int_equal(token_parse(slip, &none), IDENTITY_E_FORM);
    assert_string_equal(none.enrol, "untouched");
}

/* What is left of the last character's bits is 0: else one token had several texts. */
static void a_token_has_one_text(void **state)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    struct token token = some_token(), again;
    char text[TOKEN_TEXT_BYTES];
    unsigned good = 0;

    (void)state;
    for (int i = 0; i < 3; i++) { /* each rest of a division by 3 */
        strcat(token.enrol, "0");
        token_text(&token, text);
        for (const char *last = alphabet; *last; last++) {
            text[strlen(text) - 1] = *last;
            good += token_parse(text, &again) == 0;
        }
    }
    assert_int_equal(good, 3);
}

static void a_place_is_typed_as_a_person_types_it(void **state)
{
    static const struct {
        const char *typed, *known, *wanted; /* NULL: refused */
    } cases[] = {
        {NULL, "tcp://farm.example:7422", "tcp://farm.example:7422"},
        {NULL, "tcp://*:7422", NULL},
        {"farm.example", "tcp://*:7422", "tcp://farm.example:7422"},
        {"10.0.0.7:99", "tcp://*:7422", "tcp://10.0.0.7:99"},
        {"tcp://a.b:99", "tcp://c.d:7422", "tcp://a.b:99"},
        {"[::1]", "tcp://*:7422", "tcp://[::1]:7422"},
        {"[::1]:99", "tcp://*:7422", "tcp://[::1]:99"},
        {"", "tcp://*:7422", NULL},
        {"*", "tcp://*:7422", NULL},
    };
    char got[TOKEN_ENDPOINT_BYTES];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int r = endpoint_over(cases[i].typed, cases[i].known, got);

        assert_int_equal(r, cases[i].wanted ? 0 : IDENTITY_E_FORM);
        if (r == 0)
            assert_string_equal(got, cases[i].wanted);
    }
    assert_int_equal(endpoint_host("tcp://*:7420", "tcp://[::1]:7422", got), 0);
    assert_string_equal(got, "tcp://[::1]:7420");
    assert_int_equal(endpoint_host("tcp://x:7420", "tcp://y:7422", got), 0);
    assert_string_equal(got, "tcp://x:7420");
}

/* ---- the store ---- */

static char folder[64];
static struct store *store;
static struct store_gate *gate;

static int64_t now_s; /* tokens that ended long ago are forgotten */
enum { SECONDS = 60 };

static int setup(void **state)
{
    (void)state;
    now_s = clock_wall_ns() / NS_PER_S;
    strcpy(folder, "/tmp/westlight-tokens-XXXXXX");
    return !mkdtemp(folder) || store_open(folder, &store) != 0 ||
           store_gate_new(folder, &gate) != 0;
}

static int teardown(void **state)
{
    (void)state;
    store_gate_free(gate);
    store_close(store);
    return folder_remove(folder);
}

static struct token_row row_of(uint8_t n, enum role role, uint32_t uses)
{
    struct token_row row = {
        .digest = {n}, .role = role, .uses = uses, .until_wall_s = now_s + SECONDS};

    if (role == ROLE_STUDIO)
        strcpy(row.studio_name, "Aurora");
    return row;
}

/* By a program of its own, as an operator's command is; a child without exec would share SQLite's
 * memory of its locks. */
static void add(const struct token_row *row)
{
    char form[2 * sizeof *row + 1];
    int status;
    pid_t child = fork();

    if (child == 0) {
        hex_encode(row, sizeof *row, form);
        execl("/proc/self/exe", "tokens", folder, form, NULL);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static int add_here(const char *state, const char *form)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct token_row row;

    return hex_decode(form, &row, sizeof row) < 0 || store_token_add(state, &row, &why) != 0;
}

static int redeem(uint8_t token, uint8_t key, int64_t at_s, struct newcomer_row *ret_row)
{
    const uint8_t digest[TOKEN_DIGEST_BYTES] = {token};
    const struct worker_key name = {{key}};

    return store_redeem(gate, digest, &name, "node", at_s, ret_row);
}

static int look_up(uint8_t key, struct key_row *ret_row)
{
    const struct worker_key name = {{key}};
    struct store_reader *reader;

    assert_int_equal(store_reader_new(folder, &reader), 0);
    int r = store_key(reader, &name, ret_row);
    store_reader_free(reader);
    return r;
}

/* add() is another program that opens and closes the database: it must not take the log along. */
static void a_use_is_one_key_and_the_same_key_again_takes_none(void **state)
{
    struct token_row two = row_of(1, ROLE_STUDIO, 2);
    struct newcomer_row row;
    struct key_row key;

    (void)state;
    add(&two);
    assert_int_equal(redeem(1, 1, now_s, &row), 0);
    assert_int_equal(row.key.role, ROLE_STUDIO);
    assert_string_equal(row.key.studio_name, "Aurora");
    assert_false(row.pending);
    for (int i = 0; i < 3; i++)
        assert_int_equal(redeem(1, 1, now_s + 10 * SECONDS, &row), 0); /* long after it has ended */
    assert_int_equal(look_up(1, &key), 0);
    assert_string_equal(key.studio_name, "Aurora");
    assert_string_equal(key.name, "node");
    assert_int_equal(redeem(1, 2, now_s, &row), 0);
    assert_int_equal(redeem(1, 3, now_s, &row), STORE_E_NONE);
    assert_int_equal(look_up(3, &key), STORE_E_NONE);
}

static void what_is_unknown_ended_revoked_or_misnamed_lets_nobody_in(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct token_row one = row_of(1, ROLE_WORKER, 5);
    const struct worker_key name = {{1}};
    struct newcomer_row row;
    struct key_row key;

    (void)state;
    add(&one);
    assert_int_equal(redeem(2, 1, now_s, &row), STORE_E_NONE);
    assert_int_equal(redeem(1, 1, now_s + SECONDS, &row), STORE_E_NONE);
    assert_int_equal(store_redeem(gate, one.digest, &name, "a\nb", now_s, &row), STORE_E_NONE);
    assert_int_equal(redeem(1, 1, now_s + SECONDS - 1, &row), 0);
    assert_int_equal(store_token_revoke(folder, "\2", 1, &why), STORE_E_NONE);
    assert_int_equal(store_token_revoke(folder, one.digest, 4, &why), 0);
    assert_int_equal(redeem(1, 2, now_s, &row), STORE_E_NONE);
    assert_int_equal(redeem(1, 1, now_s, &row), 0); /* who has joined stays */
    assert_int_equal(look_up(2, &key), STORE_E_NONE);
}

static void a_key_that_was_shut_out_comes_in_by_no_token(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct token_row one = row_of(1, ROLE_WORKER, 5), other = row_of(2, ROLE_WORKER, 5);
    const struct worker_key name = {{1}};
    struct newcomer_row row;

    (void)state;
    add(&one);
    add(&other);
    assert_int_equal(redeem(1, 1, now_s, &row), 0);
    assert_int_equal(store_forbid(folder, &name, &why), 0);
    assert_int_equal(redeem(1, 1, now_s, &row), STORE_E_NONE);
    assert_int_equal(redeem(2, 1, now_s, &row), STORE_E_NONE);
}

static void a_known_key_keeps_what_it_is(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct token_row one = row_of(1, ROLE_OPERATOR, 1), alike = row_of(2, ROLE_WORKER, 1);
    const struct key_row worker = {.key = {{1}}, .role = ROLE_WORKER, .name = "old"};
    struct newcomer_row row;
    struct key_row key;

    (void)state;
    add(&one);
    add(&alike);
    assert_int_equal(store_allow(folder, &worker, 1, &why), 0);
    assert_int_equal(redeem(1, 1, now_s, &row), STORE_E_NONE);
    assert_int_equal(redeem(2, 1, now_s, &row), 0);
    assert_string_equal(row.key.name, "old");
    assert_int_equal(look_up(1, &key), 0);
    assert_int_equal(key.role, ROLE_WORKER);
    assert_int_equal(redeem(2, 2, now_s, &row), 0); /* its use was not taken */
}

static int count_waiting(void *user, const struct newcomer_row *row)
{
    *(int *)user += row->pending;
    return 0;
}

static void a_key_that_must_be_approved_of_is_nobodys_until_then(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct token_row one = row_of(1, ROLE_OPERATOR, 2);
    const struct worker_key first = {{1}}, second = {{2}};
    struct newcomer_row row;
    struct key_row key;
    int waiting = 0;

    (void)state;
    one.approve = true;
    add(&one);
    assert_int_equal(redeem(1, 1, now_s, &row), 0);
    assert_int_equal(redeem(1, 2, now_s, &row), 0);
    assert_true(row.pending);
    assert_int_equal(look_up(1, &key), STORE_E_NONE);
    assert_int_equal(store_newcomers(folder, count_waiting, &waiting, &why), 0);
    assert_int_equal(waiting, 2);

    assert_int_equal(store_approve(folder, &first, &why), 0);
    waiting = 0;
    assert_int_equal(store_newcomers(folder, count_waiting, &waiting, &why), 0);
    assert_int_equal(waiting, 1);
    assert_int_equal(store_approve(folder, &first, &why), STORE_E_NONE);
    assert_int_equal(redeem(1, 1, now_s, &row), 0);
    assert_false(row.pending);
    assert_int_equal(look_up(1, &key), 0);
    assert_int_equal(key.role, ROLE_OPERATOR);

    assert_int_equal(store_forbid(folder, &second, &why), 0);
    assert_int_equal(store_approve(folder, &second, &why), STORE_E_NONE);
    assert_int_equal(redeem(1, 2, now_s, &row), STORE_E_NONE);
}

/* ---- all at once ---- */

enum { THREADS = 8, EACH = 50 };

static void *redeem_many(void *data)
{
    struct store_gate *own;
    const uint8_t digest[TOKEN_DIGEST_BYTES] = {1};
    uintptr_t n = 0;

    if (store_gate_new(folder, &own) != 0)
        return (void *)(uintptr_t)1000;
    for (uint8_t i = 0; i < EACH; i++) {
        struct newcomer_row row;
        const struct worker_key name = {{i, *(uint8_t *)data, 1}};
        int r = store_redeem(own, digest, &name, "", now_s, &row);

        n += r == 0 ? 1 : r == STORE_E_NONE ? 0 : 1000;
    }
    store_gate_free(own);
    return (void *)n;
}

static void of_many_at_once_as_many_get_in_as_there_are_uses(void **state)
{
    struct token_row three = row_of(1, ROLE_WORKER, 3);
    pthread_t threads[THREADS];
    uint8_t numbers[THREADS];
    uintptr_t sum = 0;

    (void)state;
    add(&three);
    for (uint8_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, redeem_many, &numbers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *n;

        assert_int_equal(pthread_join(threads[i], &n), 0);
        sum += (uintptr_t)n;
    }
    assert_int_equal(sum, 3);
}

static int count_token(void *user, const struct token_row *row)
{
    *(struct token_row *)user = *row;
    return 0;
}

/* A use that was taken after the backup would be there again. */
static void a_backup_holds_no_tokens(void **state)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    struct token_row one = row_of(1, ROLE_WORKER, 5), found = {0};
    char copy[96], path[112];

    (void)state;
    add(&one);
    snprintf(copy, sizeof copy, "%s/copy", folder);
    snprintf(path, sizeof path, "%s/state.db", copy);
    assert_int_equal(mkdir(copy, 0700), 0);
    assert_int_equal(store_copy(folder, path, &why), 0);
    assert_int_equal(store_tokens(copy, count_token, &found, &why), 0);
    assert_int_equal(found.role, ROLE_NONE);
    assert_int_equal(store_tokens(folder, count_token, &found, &why), 0);
    assert_int_equal(found.role, ROLE_WORKER);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_read_as_it_was_written),
        cmocka_unit_test(a_slip_in_any_character_is_seen),
        cmocka_unit_test(a_token_has_one_text),
        cmocka_unit_test(a_place_is_typed_as_a_person_types_it),
        T(a_use_is_one_key_and_the_same_key_again_takes_none),
        T(what_is_unknown_ended_revoked_or_misnamed_lets_nobody_in),
        T(a_key_that_was_shut_out_comes_in_by_no_token),
        T(a_known_key_keeps_what_it_is),
        T(a_key_that_must_be_approved_of_is_nobodys_until_then),
        T(of_many_at_once_as_many_get_in_as_there_are_uses),
        T(a_backup_holds_no_tokens),
    };

    if (argc == 3)
        return add_here(argv[1], argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

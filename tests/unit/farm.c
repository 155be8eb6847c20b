/* One config file, one section a farm; what is wrong is said with its line. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include <client/farm.h>
#include <client/receipts.h>
#include <proto/base/bytes.h>
#include <proto/identity.h>

static char folder[64];

static int make_folder(void **state)
{
    snprintf(folder, sizeof(folder), "/tmp/westlight-farm-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    setenv("HOME", folder, 1);
    setenv("XDG_STATE_HOME", folder, 1);
    unsetenv("WESTLIGHT_FARM");
    unsetenv("XDG_CONFIG_HOME");
    return 0;
}

static int remove_folder(void **state)
{
    return folder_remove(folder);
}

static void write_config(const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/config", folder);
    assert_int_equal(file_write(path, text, strlen(text), 0600), 0);
    setenv("WESTLIGHT_CONFIG", path, 1);
}

#define KEY "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

static const char TWO[] = "# farms\n"
                          "default = west\n"
                          "\n"
                          "[farm east]\n"
                          "control = tcp://east:7420\r\n"
                          "server_key = " KEY "\n"
                          "key = /keys/east\n"
                          "[farm west]\n"
                          "  control =  tcp://west:7420  \n"
                          "bulk=tcp://west:9\n"
                          "server_key=" KEY "\n"
                          "key = ~/west.key\n"
                          "secret = ~/west.secret";

static void a_farm_is_chosen_by_name_environment_or_default(void **state)
{
    struct westlight_farm farm;
    char why[256] = "", expected[128];

    write_config(TWO);
    assert_int_equal(westlight_farm_load(NULL, &farm, why, sizeof(why)), 0);
    assert_string_equal(farm.name, "west");
    assert_string_equal(farm.control, "tcp://west:7420");
    assert_string_equal(farm.bulk, "tcp://west:9");
    snprintf(expected, sizeof(expected), "%s/west.secret", folder);
    assert_string_equal(farm.secret_file, expected);
    assert_int_equal(westlight_farm_load("east", &farm, why, sizeof(why)), 0);
    assert_string_equal(farm.control, "tcp://east:7420");
    assert_string_equal(farm.bulk, "");
    setenv("WESTLIGHT_FARM", "east", 1);
    assert_int_equal(westlight_farm_load(NULL, &farm, why, sizeof(why)), 0);
    assert_string_equal(farm.name, "east");
    assert_int_equal(westlight_farm_load("west", &farm, why, sizeof(why)), 0);
    assert_string_equal(farm.name, "west");
    unsetenv("WESTLIGHT_FARM");
}

static void quotes_and_a_byte_order_mark_are_no_part_of_it(void **state)
{
    struct westlight_farm farm;
    char why[256] = "";

    write_config("\xef\xbb\xbf"
                 "default = \"west\"\n"
                 "[farm west]\ncontrol = 'tcp://west:7420'\nserver_key = \"" KEY "\"\nkey = /k\n");
    assert_int_equal(westlight_farm_load(NULL, &farm, why, sizeof(why)), 0);
    assert_string_equal(farm.control, "tcp://west:7420");
    assert_string_equal(farm.server_key, KEY);
}

static void the_only_farm_needs_no_default(void **state)
{
    struct westlight_farm farm;
    char why[256] = "";

    write_config("[farm one]\ncontrol = tcp://h:1\nserver_key = " KEY "\nkey = /k\n");
    assert_int_equal(westlight_farm_load(NULL, &farm, why, sizeof(why)), 0);
    assert_string_equal(farm.name, "one");
}

static void an_error_names_the_file_and_the_line(void **state)
{
    static const struct {
        const char *name, *text, *expected;
    } cases[] = {
        {NULL, "colour = red\n", "config:1: \"colour\" is not known"},
        {NULL, "[farm a]\ncolour = red\n", "config:2: \"colour\" is not known"},
        {NULL, "[farm a]\n\ncontrol\n", "config:3: not a setting"},
        {NULL, "[barn a]\n", "config:1: not a section"},
        {NULL, "[farm ]\n", "config:1: a farm without a name"},
        {"b", "[farm a]\ncontrol = tcp://h:1\n", "farm b: not in"},
        {NULL, "[farm a]\ncontrol = tcp://h:1\n[farm b]\n", "2 farms and no default"},
        {NULL, "[farm a]\nkey = /k\n", "lacks a line: add control"},
        {NULL, "[farm a]\ncontrol = tcp://h:1\nserver_key = short\nkey = /k\n",
         "server_key is not a key"},
        {NULL, "[farm a123456789012345678901234567890123456789012345678901234567890123456789]\n",
         "config:1: longer than 63"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct westlight_farm farm;
        char why[512] = "";
        write_config(cases[i].text);
        assert_int_equal(westlight_farm_load(cases[i].name, &farm, why, sizeof(why)),
                         WESTLIGHT_E_USAGE);
        if (!strstr(why, cases[i].expected))
            fail_msg("case %zu: %s", i, why);
    }
    struct westlight_farm farm;
    char why[512] = "";
    setenv("WESTLIGHT_CONFIG", "/nonexistent/config", 1);
    assert_int_equal(westlight_farm_load(NULL, &farm, why, sizeof(why)), WESTLIGHT_E_USAGE);
    assert_non_null(strstr(why, "/nonexistent/config: No such file"));
}

static void a_new_key_is_never_written_over_another(void **state)
{
    char key[128], secret[128], public[WESTLIGHT_KEY_TEXT] = "", why[256] = "";
    uint8_t before[32], after[32];

    snprintf(key, sizeof(key), "%s/new/person.key", folder);
    snprintf(secret, sizeof(secret), "%s/new/studio.secret", folder);
    assert_int_equal(westlight_key_new(key, secret, public, why, sizeof(why)), 0);
    assert_int_equal(strlen(public), 40);
    assert_int_equal(identity_secret_load(secret, before), 0);
    assert_int_equal(westlight_key_new(key, secret, public, why, sizeof(why)), WESTLIGHT_E_EXISTS);
    assert_non_null(strstr(why, "it is there already"));

    snprintf(key, sizeof(key), "%s/new/other.key", folder);
    assert_int_equal(westlight_key_new(key, secret, public, why, sizeof(why)), 0);
    assert_int_equal(identity_secret_load(secret, after), 0); /* the studio's stays */
    assert_memory_equal(before, after, 32);
}

static void receipts_outlive_their_writer(void **state)
{
    struct receipts receipts;
    struct stat status = {.st_size = 5, .st_mtim = {1, 2}},
                other = {.st_size = 5, .st_mtim = {1, 3}};
    struct receipt receipt_of = {.job = "00ff", .submitted_wall_s = 17, .step = 1, .task = 2};
    char path[32];

    assert_int_equal(receipts_open(&receipts, "/out"), 0);
    for (int i = 0; i < 200; i++) {
        snprintf(path, sizeof(path), "a b/%d\n.png", i);
        assert_int_equal(receipts_add(&receipts, &receipt_of, path, &status), 0);
    }
    receipt_of.sequence = 900;
    assert_int_equal(receipts_add(&receipts, &receipt_of, "a b/7\n.png", &other), 0);
    receipts_deinit(&receipts);

    assert_int_equal(receipts_open(&receipts, "/out"), 0);
    assert_int_equal(receipts.n, 200);
    const struct receipt *receipt = receipts_find(&receipts, "a b/7\n.png");
    assert_non_null(receipt);
    assert_int_equal(receipt->sequence, 900); /* the later one counts */
    assert_int_equal(receipt->submitted_wall_s, 17);
    assert_string_equal(receipt->job, "00ff");
    assert_true(receipt_holds(receipt, &other));
    assert_false(receipt_holds(receipt, &status));
    assert_null(receipts_find(&receipts, "a b/200\n.png"));
    receipts_deinit(&receipts);

    assert_int_equal(receipts_open(&receipts, "/elsewhere"), 0);
    assert_null(receipts_find(&receipts, "a b/7\n.png"));
    receipts_deinit(&receipts);
}

static void a_path_that_begins_with_spaces_keeps_them_in_its_receipt(void **state)
{
    static const char *const paths[] = {" f.png", "  f.png", "\t\nf.png", "f.png"};
    struct receipts receipts;
    struct receipt from = {.job = "0100", .step = 1, .task = 2};
    struct stat status = {.st_size = 5};

    (void)state;
    assert_int_equal(receipts_open(&receipts, "/spaces"), 0);
    for (size_t i = 0; i < 4; i++) {
        from.sequence = i;
        assert_int_equal(receipts_add(&receipts, &from, paths[i], &status), 0);
    }
    receipts_deinit(&receipts);

    assert_int_equal(receipts_open(&receipts, "/spaces"), 0);
    assert_int_equal(receipts.n, 4);
    for (size_t i = 0; i < 4; i++) {
        const struct receipt *receipt = receipts_find(&receipts, paths[i]);
        assert_non_null(receipt);
        assert_int_equal(receipt->sequence, i);
    }
    receipts_deinit(&receipts);
}

static void fill(struct receipts *receipts, const char *of, unsigned n)
{
    struct receipt from = {.job = "0100"};
    struct stat status = {.st_size = 5};

    assert_int_equal(receipts_open(receipts, of), 0);
    for (unsigned i = 0; i < n; i++) {
        from.sequence = i;
        assert_int_equal(receipts_add(receipts, &from, i % 2 ? "odd" : "even", &status), 0);
    }
}

static void a_disk_that_is_full_while_receipts_are_tidied_takes_none(void **state)
{
    struct receipts receipts;
    struct rlimit before, none;

    (void)state;
    fill(&receipts, "/full", 1300);
    receipts_deinit(&receipts);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = (struct rlimit){1, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    int r = receipts_open(&receipts, "/full");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(r, 0);
    assert_int_equal(receipts.n, 2);
    receipts_deinit(&receipts);
    assert_int_equal(receipts_open(&receipts, "/full"), 0);
    assert_int_equal(receipts_find(&receipts, "odd")->sequence, 1299);
    receipts_deinit(&receipts);
}

static void receipts_that_are_too_many_begin_anew_and_hold_up_nobody(void **state)
{
    struct receipts first, second;
    struct receipt from = {.job = "0100"};
    struct stat status = {.st_size = 5};

    (void)state;
    fill(&first, "/many", 2);
    assert_int_equal(ftruncate(first.file, ((off_t)1 << 30) + 1), 0);
    receipts_deinit(&first);
    assert_int_equal(receipts_open(&first, "/many"), 0);
    assert_int_equal(first.n, 0);
    alarm(20); /* it would wait for ever */
    assert_int_equal(receipts_open(&second, "/many"), 0);
    alarm(0);
    assert_int_equal(receipts_add(&first, &from, "a", &status), 0);
    assert_int_equal(receipts_add(&second, &from, "b", &status), 0);
    receipts_deinit(&first);
    receipts_deinit(&second);
    assert_int_equal(receipts_open(&first, "/many"), 0);
    assert_int_equal(first.n, 2);
    receipts_deinit(&first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_farm_is_chosen_by_name_environment_or_default),
        cmocka_unit_test(quotes_and_a_byte_order_mark_are_no_part_of_it),
        cmocka_unit_test(the_only_farm_needs_no_default),
        cmocka_unit_test(an_error_names_the_file_and_the_line),
        cmocka_unit_test(a_new_key_is_never_written_over_another),
        cmocka_unit_test(receipts_outlive_their_writer),
        cmocka_unit_test(a_path_that_begins_with_spaces_keeps_them_in_its_receipt),
        cmocka_unit_test(a_disk_that_is_full_while_receipts_are_tidied_takes_none),
        cmocka_unit_test(receipts_that_are_too_many_begin_anew_and_hold_up_nobody),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/* format.c - format strings and their scopes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <worker/format.h>

static void expect(const struct format *format, const char *text, const char *wanted)
{
    _cleanup_(freep) char *got = NULL;

    assert_int_equal(format_resolve(format, text, &got, NULL), 0);
    assert_string_equal(got, wanted);
}

static void references_become_values(void **state)
{
    struct format format;

    format_init(&format);
    assert_int_equal(format_set(&format, "Task.Param.", "Frame", "7"), 0);
    assert_int_equal(format_set(&format, "", "Session.WorkingDirectory", "/w"), 0);
    expect(&format, "+SF{{Task.Param.Frame}} {{ Session.WorkingDirectory }}/out", "+SF7 /w/out");
    expect(&format, "", "");
    expect(&format, "{ } }} {x}", "{ } }} {x}");
    expect(&format, "{{Task.Param.Frame}}{{Task.Param.Frame}}", "77");
    format_deinit(&format);
}

static void an_unknown_name_is_named(void **state)
{
    char why[FORMAT_WHY_BYTES] = "", *text = NULL;
    struct format format;

    format_init(&format);
    assert_int_equal(format_set(&format, "Param.", "Scene", "a"), 0);
    assert_int_equal(format_resolve(&format, "x {{Param.Scen}}", &text, why), FORMAT_E_UNKNOWN);
    assert_non_null(strstr(why, "{{Param.Scen}}"));
    assert_int_equal(format_resolve(&format, "x {{Param.Scene", &text, why), FORMAT_E_FORM);
    assert_non_null(strstr(why, "not closed"));
    assert_null(text);
    format_deinit(&format);
}

static void the_newest_entry_wins_until_its_scope_is_cut(void **state)
{
    struct format format;
    size_t mark;

    format_init(&format);
    assert_int_equal(format_set(&format, "", "A", "old"), 0);
    mark = format.n;
    assert_int_equal(format_set(&format, "", "A", "new"), 0);
    expect(&format, "{{A}}", "new");
    assert_int_equal(format_set(&format, "", "A", NULL), 0);
    assert_null(format_get(&format, "A"));
    format_cut(&format, mark);
    expect(&format, "{{A}}", "old");
    format_deinit(&format);
}

static void an_environment_holds_the_newest_of_each_name(void **state)
{
    _cleanup_(format_texts_freep) char **environment = NULL;
    struct format format;

    format_init(&format);
    assert_int_equal(format_set(&format, "", "A", "1"), 0);
    assert_int_equal(format_set(&format, "", "AB", "2"), 0);
    assert_int_equal(format_set(&format, "", "A", "3"), 0);
    assert_int_equal(format_set(&format, "", "C", "4"), 0);
    assert_int_equal(format_set(&format, "", "C", NULL), 0);
    assert_int_equal(format_environment(&format, &environment), 0);
    assert_string_equal(environment[0], "AB=2");
    assert_string_equal(environment[1], "A=3");
    assert_null(environment[2]);
    format_deinit(&format);
}

static void names_and_texts_have_a_limit(void **state)
{
    static char big[FORMAT_BYTES_MAX / 2 + 10];
    char why[FORMAT_WHY_BYTES] = "", *text = NULL;
    struct format format;
    int r = 0;

    format_init(&format);
    memset(big, 'x', sizeof(big) - 1);
    assert_int_equal(format_set(&format, "", "Big", big), 0);
    assert_int_equal(format_resolve(&format, "{{Big}}{{Big}}", &text, why), FORMAT_E_LIMIT);
    assert_null(text);
    while (!r && format.n <= FORMAT_NAMES_MAX)
        r = format_set(&format, "", "n", "");
    assert_int_equal(r, FORMAT_E_LIMIT);
    assert_int_equal(format.n, FORMAT_NAMES_MAX);
    format_deinit(&format);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(references_become_values),
        cmocka_unit_test(an_unknown_name_is_named),
        cmocka_unit_test(the_newest_entry_wins_until_its_scope_is_cut),
        cmocka_unit_test(an_environment_holds_the_newest_of_each_name),
        cmocka_unit_test(names_and_texts_have_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

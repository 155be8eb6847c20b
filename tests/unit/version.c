/* version.c - which version saved a scene, and which one renders it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include <cmocka.h>
#include <client/version.h>
#include <proto/base/bytes.h>

static void says(const void *data, size_t size, const char *expected)
{
    char path[] = "/tmp/westlight-version-XXXXXX", version[32] = "x";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, data, size), 0);
    close(fd);
    version_of_blend(path, version);
    unlink(path);
    assert_string_equal(version, expected);
}

static void a_scene_says_which_version_saved_it_packed_or_not(void **state)
{
    static const struct {
        const char *head, *version;
    } cases[] = {
        {"BLENDER-v304REND", "3.4"},
        {"BLENDER_V283REND", "2.83"},
        {"BLENDER-v400REND", "4.0"},
        {"BLENDER17-01v0500REND", "5.0"},
        {"BLENDER17-01v0512REND", "5.12"},
        {"BLENDER-v3xxREND", ""},
        {"BLENDER", ""},
        {"\x1f\x8b and so on, packed", ""},
        {"RENDER-v304REND", ""},
        {"", ""},
    };
    char *noise = malloc(300000), *packed = malloc(400000);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        says(cases[i].head, strlen(cases[i].head), cases[i].version);
    for (size_t i = 0; i < 300000; i++)
        noise[i] = (char)(i * i * 7919 >> 7 ^ i * 31);
    memcpy(noise, "BLENDER-v401REND", 16);
    size_t size = ZSTD_compress(packed, 400000, noise, 300000, 3);
    assert_false(ZSTD_isError(size));
    says(packed, size, "4.1");
    says(packed, 9, "");
    free(noise);
    free(packed);
    version_of_blend("/nonexistent", (char[32]){0});
}

static void the_version_is_chosen_and_said(void **state)
{
#define THREE "3.4.1", "3.10.0", "4.0.2"
    static const struct {
        const char *asked, *saved;
        const char *offered[4];
        const char *version;
        bool warning;
        const char *line;
    } cases[] = {
        {NULL, "3.4", {THREE}, "3.4.1", false, "b 3.4.1: the version that saved the scene"},
        {NULL, "3.4", {"3.4.1", "3.4.10", "3.4.9"}, "3.4.10", false, "b 3.4.10: the version that"},
        {NULL, "3.1", {THREE}, "4.0.2", false, "b 4.0.2: the newest there is; 3.1 saved the scene"},
        {NULL, "4.2", {THREE}, "4.0.2", true, "b 4.0.2: the newest there is, but 4.2 saved"},
        {NULL, "", {THREE}, "4.0.2", false, "b 4.0.2: the newest there is; the scene does not say"},
        {NULL, NULL, {"3.7.0.10", "3.8.0", NULL}, "3.8.0", false, "b 3.8.0: the newest there is"},
        {NULL, "3.4", {NULL}, NULL, true, "b: no connected worker offers any: the job waits"},
        {"3.10.0", "3.4", {THREE}, "3.10.0", false, "b 3.10.0: as asked"},
        {"3.4",
         "3.4",
         {THREE},
         "3.4",
         true,
         "b 3.4: as asked, but no connected worker offers it (they offer 3.4.1, 3.10.0, 4.0.2)"},
        {"9",
         NULL,
         {NULL},
         "9",
         true,
         "b 9: as asked, but no connected worker offers it (they "
         "offer none)"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct version_choice choice;
        size_t n = 0;

        while (n < 4 && cases[i].offered[n])
            n++;
        version_choose("b", cases[i].asked, cases[i].saved, cases[i].offered, n, &choice);
        if (!choice.version != !cases[i].version ||
            (choice.version && strcmp(choice.version, cases[i].version) != 0) ||
            choice.warning != cases[i].warning ||
            strncmp(choice.line, cases[i].line, strlen(cases[i].line)) != 0)
            fail_msg("case %zu: %s: %s", i, choice.version ? choice.version : "none", choice.line);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scene_says_which_version_saved_it_packed_or_not),
        cmocka_unit_test(the_version_is_chosen_and_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

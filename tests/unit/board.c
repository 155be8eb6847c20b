/* What the tasks of one worker share, where many threads want it at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <proto/base/bytes.h>
#include <worker/reuse.h>
#include <worker/task.h>

enum { THREADS = 8, ROUNDS = 50, READY = 2 };

static pthread_barrier_t together;

static void *makes(void *user)
{
    pthread_barrier_wait(&together);
    task_board_folders(user);
    return NULL;
}

static size_t folders(const char *state)
{
    char path[128];
    size_t n = 0;
    DIR *sessions;

    snprintf(path, sizeof(path), "%s/sessions", state);
    sessions = opendir(path);
    assert_non_null(sessions);
    for (struct dirent *entry; (entry = readdir(sessions));)
        n += entry->d_name[0] != '.';
    closedir(sessions);
    return n;
}

static void no_more_empty_folders_are_made_than_are_wanted(void **state)
{
    char folder[] = "/tmp/westlight-board-XXXXXX";
    struct task_board board = {.state = mkdtemp(folder), .ready = READY};
    pthread_t threads[THREADS];

    assert_non_null(board.state);
    pthread_mutex_init(&board.lock, NULL);
    pthread_barrier_init(&together, NULL, THREADS);
    for (int round = 0; round < ROUNDS; round++) {
        assert_int_equal(reuse_new(&board.sessions), 0);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, makes, &board), 0);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(folders(folder), READY);
        reuse_remove(board.sessions, NULL);
        reuse_free(board.sessions);
    }
    pthread_barrier_destroy(&together);
    pthread_mutex_destroy(&board.lock);
    assert_int_equal(folder_remove(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_empty_folders_are_made_than_are_wanted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

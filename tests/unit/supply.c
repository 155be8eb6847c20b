/* supply.c - what is waited out between a worker and the vault, and what ends it. Every call of the
 * transfer fails as the test wants (--wrap), and a pause takes no time.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <worker/supply.h>

enum {
    LONG = 5000,
    SOON = 40
}; /* rounds: hours, and what another worker is not kept from for long */

static struct {
    int result; /* of each round, `rounds` times; then all is well */
    int rounds;
    int tried, renewed, paused_ms, longest_ms;
    bool by_renew, by_source, online;
    int stop_at; /* round */
    atomic_bool stop;
} plan;

int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_transfer_new(const struct transfer_config *config, struct transfer **ret_transfer);
void __wrap_transfer_free(struct transfer *transfer);
const char *__wrap_transfer_why(const struct transfer *transfer);
uint64_t __wrap_transfer_bytes_received(const struct transfer *transfer);
int __wrap_transfer_have(struct transfer *transfer, const struct block_id *ids, size_t n_ids,
                         bool *ret_missing);
int __wrap_transfer_put(struct transfer *transfer, size_t n, bool plain, transfer_source *source,
                        void *user);
int __wrap_cache_fetch(struct cache *cache, struct transfer *transfer,
                       const struct transfer_want *wants, size_t n, const atomic_bool *stop);
int __wrap_cache_pin(struct cache *cache, const struct block_id *id);
void __wrap_cache_unpin(struct cache *cache, const struct block_id *id);

static int round_ends(void)
{
    plan.longest_ms = plan.paused_ms > plan.longest_ms ? plan.paused_ms : plan.longest_ms;
    plan.paused_ms = 0;
    plan.tried++;
    if (plan.tried == plan.stop_at)
        atomic_store(&plan.stop, true);
    return plan.tried <= plan.rounds ? plan.result : 0;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    plan.paused_ms += ms;
    return 0;
}

int __wrap_transfer_new(const struct transfer_config *config, struct transfer **ret_transfer)
{
    *ret_transfer = (struct transfer *)&plan;
    return 0;
}

void __wrap_transfer_free(struct transfer *transfer)
{
}

const char *__wrap_transfer_why(const struct transfer *transfer)
{
    return "";
}

uint64_t __wrap_transfer_bytes_received(const struct transfer *transfer)
{
    return 0;
}

int __wrap_transfer_have(struct transfer *transfer, const struct block_id *ids, size_t n_ids,
                         bool *ret_missing)
{
    memset(ret_missing, true, n_ids);
    return 0;
}

int __wrap_transfer_put(struct transfer *transfer, size_t n, bool plain, transfer_source *source,
                        void *user)
{
    struct bytes out = {0};
    struct block_id id;
    int r = plan.by_renew ? 0 : round_ends();

    return r == 0 || !plan.by_source ? r : source(user, 0, &out, &id);
}

int __wrap_cache_fetch(struct cache *cache, struct transfer *transfer,
                       const struct transfer_want *wants, size_t n, const atomic_bool *stop)
{
    return plan.by_renew ? 0 : round_ends();
}

int __wrap_cache_pin(struct cache *cache, const struct block_id *id)
{
    return 0;
}

void __wrap_cache_unpin(struct cache *cache, const struct block_id *id)
{
}

static int endpoint(void *user, char ret_endpoint[256])
{
    strcpy(ret_endpoint, "tcp://nowhere");
    return 0;
}

static bool online(void *user)
{
    return plan.online;
}

static int renew(void *user, struct bytes *pass)
{
    int r = plan.by_renew ? round_ends() : 0;

    plan.renewed++;
    return r == 0 ? bytes_append(pass, "pass", 4) : r;
}

static int source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    return plan.result;
}

static struct supply *supply_ready(int result, int rounds)
{
    struct supply *supply;
    const struct supply_config config = {
        .stop = &plan.stop, .endpoint = endpoint, .online = online, .renew = renew};

    memset(&plan, 0, sizeof(plan));
    plan.result = result;
    plan.rounds = rounds;
    plan.online = true;
    assert_int_equal(supply_new(&config, NULL, 0, &supply), 0);
    return supply;
}

static int put(struct supply *supply)
{
    struct block_id id = {{1}};

    return supply_put(supply, &id, 1, false, source, NULL);
}

static int stage(struct supply *supply)
{
    struct block_key key = {.sealed_bytes = 1};

    return supply_stage(supply, &key, 1);
}

static const int passing[] = {
    TRANSFER_E_BROKER, TRANSFER_E_FULL, TRANSFER_E_DISK, TRANSFER_E_REFUSED, -ETIMEDOUT, -EPROTO,
    -EMFILE,           -ENFILE,         -ENOMEM};

static void what_goes_out_waits_for_all_that_passes(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(passing); i++) {
        struct supply *supply = supply_ready(passing[i], LONG);

        if (put(supply) != 0)
            fail_msg("%d ended it after %d rounds", passing[i], plan.tried);
        assert_int_equal(plan.tried, LONG + 1);
        assert_int_equal(plan.renewed, passing[i] == TRANSFER_E_REFUSED ? LONG + 1 : 1);
        assert_in_range(plan.longest_ms, 2000, 5000);
        supply_free(supply);
    }
}

static void what_goes_out_waits_for_a_broker_that_can_give_no_pass_now(void **state)
{
    struct supply *supply = supply_ready(TRANSFER_E_BROKER, LONG);

    plan.by_renew = true;
    assert_int_equal(put(supply), 0);
    supply_free(supply);
}

static void no_pass_for_its_lease_ends_what_goes_out(void **state)
{
    struct supply *supply = supply_ready(TRANSFER_E_REFUSED, LONG);

    plan.by_renew = true;
    assert_int_equal(put(supply), TRANSFER_E_REFUSED);
    assert_true(plan.tried < SOON);
    assert_string_equal(supply_why(supply), "the broker gives no pass for this lease");
    supply_free(supply);
}

static void what_goes_out_waits_no_longer_than_it_is_wanted(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(passing); i++) {
        struct supply *supply = supply_ready(passing[i], LONG);

        plan.stop_at = 30;
        assert_int_equal(put(supply), -ECANCELED);
        assert_int_equal(plan.tried, 30);
        supply_free(supply);
    }
}

static void what_no_waiting_mends_ends_what_goes_out(void **state)
{
    static const int lasting[] = {TRANSFER_E_MISSING, TRANSFER_E_QUOTA, TRANSFER_E_CORRUPT,
                                  TRANSFER_E_DAMAGED};
    static const int own[] = {-EIO, -ENOENT, -EBADMSG, -EFBIG}; /* of the spool's file */

    for (size_t i = 0; i < ARRAY_SIZE(lasting); i++) {
        struct supply *supply = supply_ready(lasting[i], LONG);

        assert_int_equal(put(supply), lasting[i]);
        assert_int_equal(plan.tried, 1);
        supply_free(supply);
    }
    for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
        struct supply *supply = supply_ready(own[i], LONG);

        plan.by_source = true;
        assert_int_equal(put(supply), own[i]);
        assert_int_equal(plan.tried, 1);
        assert_string_equal(supply_why(supply), strerror(-own[i]));
        supply_free(supply);
    }
}

/* So that the task is given to another worker; but no broker is given up at its first trouble. */
static void what_comes_in_is_given_up_after_some_rounds(void **state)
{
    static const int once[] = {TRANSFER_E_MISSING, TRANSFER_E_DAMAGED, -EIO, -ENOMEM, -EMFILE};
    static const int often[] = {TRANSFER_E_BROKER, TRANSFER_E_FULL, TRANSFER_E_REFUSED, -ETIMEDOUT};

    for (size_t i = 0; i < ARRAY_SIZE(once); i++) {
        struct supply *supply = supply_ready(once[i], LONG);

        assert_int_equal(stage(supply), once[i]);
        assert_int_equal(plan.tried, 1);
        supply_free(supply);
    }
    for (size_t i = 0; i < ARRAY_SIZE(often); i++) {
        struct supply *supply = supply_ready(often[i], 3);

        assert_int_equal(stage(supply), 0);
        supply_free(supply);
        supply = supply_ready(often[i], LONG);
        assert_int_equal(stage(supply), often[i]);
        assert_in_range(plan.tried, 4, SOON);
        supply_free(supply);
    }
}

static void what_comes_in_waits_for_a_broker_that_is_away_or_full(void **state)
{
    struct supply *supply = supply_ready(-ETIMEDOUT, LONG);

    plan.online = false;
    assert_int_equal(stage(supply), 0);
    supply_free(supply);
    supply = supply_ready(TRANSFER_E_DISK, LONG);
    assert_int_equal(stage(supply), 0);
    supply_free(supply);
}

#define TEST(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_goes_out_waits_for_all_that_passes),
        TEST(what_goes_out_waits_for_a_broker_that_can_give_no_pass_now),
        TEST(no_pass_for_its_lease_ends_what_goes_out),
        TEST(what_goes_out_waits_no_longer_than_it_is_wanted),
        TEST(what_no_waiting_mends_ends_what_goes_out),
        TEST(what_comes_in_is_given_up_after_some_rounds),
        TEST(what_comes_in_waits_for_a_broker_that_is_away_or_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

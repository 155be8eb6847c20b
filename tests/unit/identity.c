/* Keys and their files, tickets, passes and job keys: what is true opens, anything else does not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/bytes.h>
#include <proto/identity.h>

static char folder[64];

static const char *below(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int setup(void **state)
{
    snprintf(folder, sizeof(folder), "/tmp/westlight-unit-identity-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    return folder_remove(folder);
}

static struct identity_signer signer_of(uint8_t seed)
{
    struct identity_signer signer;
    uint8_t master[32];

    memset(master, seed, sizeof(master));
    identity_signer_init(&signer, master);
    return signer;
}

static void a_key_file_is_private_read_back_and_never_written_over(void **state)
{
    struct link_keypair keys, other, back;
    struct stat status;

    assert_int_equal(identity_key_new(&keys), 0);
    assert_int_equal(identity_key_new(&other), 0);
    assert_memory_not_equal(&keys, &other, sizeof(keys));
    assert_int_equal(identity_key_save(below("key"), &keys), 0);
    assert_int_equal(stat(below("key"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(identity_key_save(below("key"), &other), -EEXIST);
    assert_int_equal(identity_key_load(below("key"), &back), 0);
    assert_memory_equal(&keys, &back, sizeof(keys));
    assert_int_equal(identity_key_load(below("none"), &back), -ENOENT);
    assert_int_equal(identity_key_save(below("none/key"), &keys), -ENOENT);
}

static void a_new_keys_text_is_no_option(void **state)
{
    struct link_keypair keys;
    char text[IDENTITY_Z85_SIZE];

    for (int i = 0; i < 1000; i++) { /* one in 85 would begin so */
        assert_int_equal(identity_key_new(&keys), 0);
        identity_key_text(&keys.public_key, text);
        assert_int_not_equal(text[0], '-');
    }
}

static void a_key_file_with_any_byte_changed_is_refused(void **state)
{
    _cleanup_(bytes_deinit) struct bytes file = {0};
    struct link_keypair keys, back;

    assert_int_equal(identity_key_new(&keys), 0);
    unlink(below("changed"));
    assert_int_equal(identity_key_save(below("changed"), &keys), 0);
    assert_int_equal(file_read(below("changed"), 4096, &file), 0);
    for (size_t i = 0; i < file.size; i++) {
        /* The lowest bits of a secret key's ends mean nothing to CURVE: those characters differ,
         * and still give the same public key. Elsewhere nothing may differ. */
        size_t secret = file.size - 41;
        FILE *out = fopen(below("changed"), "w");

        file.data[i] ^= 1;
        fwrite(file.data, 1, file.size, out);
        fclose(out);
        if (i < secret)
            assert_int_equal(identity_key_load(below("changed"), &back), IDENTITY_E_FORM);
        file.data[i] ^= 1;
    }
    assert_int_equal(truncate(below("changed"), (off_t)file.size - 1), 0);
    assert_int_equal(identity_key_load(below("changed"), &back), IDENTITY_E_FORM);
    assert_int_equal(file_write(below("changed"), "", 0, 0600), 0);
    assert_int_equal(identity_key_load(below("changed"), &back), IDENTITY_E_FORM);
}

static void a_key_has_one_text(void **state)
{
    struct link_keypair keys;
    struct link_key back;
    char text[IDENTITY_Z85_SIZE];

    assert_int_equal(identity_key_new(&keys), 0);
    identity_key_text(&keys.public_key, text);
    assert_int_equal(strlen(text), 40);
    assert_int_equal(identity_key_parse(text, &back), 0);
    assert_memory_equal(&back, &keys.public_key, sizeof(back));
    assert_int_equal(identity_key_parse("short", &back), IDENTITY_E_FORM);
    assert_int_equal(identity_key_parse("", &back), IDENTITY_E_FORM);
    assert_int_equal(identity_key_parse("########################################", &back), IDENTITY_E_FORM);
    text[7] = ' ';
    assert_int_equal(identity_key_parse(text, &back), IDENTITY_E_FORM);
    text[7] = (char)200;
    assert_int_equal(identity_key_parse(text, &back), IDENTITY_E_FORM);
}

static void a_secret_is_made_once_and_kept(void **state)
{
    uint8_t first[32], second[32];
    struct stat status;

    assert_int_equal(identity_secret_load(below("secret"), first), -ENOENT);
    assert_int_equal(identity_secret_load_or_new(below("secret"), first), 0);
    assert_int_equal(identity_secret_load_or_new(below("secret"), second), 0);
    assert_memory_equal(first, second, 32);
    assert_int_equal(stat(below("secret"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(file_write(below("secret"), "abc\n", 4, 0600), 0);
    assert_int_equal(identity_secret_load_or_new(below("secret"), second), IDENTITY_E_FORM);
    assert_memory_equal(first, second, 32);
}

static void a_ticket_holds_for_its_lease_its_worker_and_its_broker_only(void **state)
{
    const struct identity_signer signer = signer_of(1), other = signer_of(2);
    const struct lease lease = {.job = {1, 2, 3}, .step = 4, .task = 5, .floor = 6, .epoch = 7, .attempt = 8};
    const struct link_key worker = {{9}}, neighbour = {{10}};
    struct lease changed[6] = {lease, lease, lease, lease, lease, lease};
    struct ticket ticket;

    ticket_sign(&signer, &lease, &worker, &ticket);
    assert_true(ticket_valid(&signer, &lease, &worker, ticket.bytes, sizeof(ticket.bytes)));
    changed[0].job[15] ^= 1;
    changed[1].step++;
    changed[2].task |= 1ULL << 63;
    changed[3].floor++;
    changed[4].epoch++;
    changed[5].attempt |= 1ULL << 32;
    for (size_t i = 0; i < 6; i++)
        assert_false(ticket_valid(&signer, &changed[i], &worker, ticket.bytes, sizeof(ticket.bytes)));
    assert_false(ticket_valid(&signer, &lease, &neighbour, ticket.bytes, sizeof(ticket.bytes)));
    assert_false(ticket_valid(&other, &lease, &worker, ticket.bytes, sizeof(ticket.bytes)));
    assert_false(ticket_valid(&signer, &lease, &worker, ticket.bytes, 31));
    assert_false(ticket_valid(&signer, &lease, &worker, NULL, 0));
    for (size_t i = 0; i < sizeof(ticket.bytes) * 8; i++) {
        ticket.bytes[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_false(ticket_valid(&signer, &lease, &worker, ticket.bytes, sizeof(ticket.bytes)));
        ticket.bytes[i / 8] ^= (uint8_t)(1 << i % 8);
    }
}

static void a_pass_opens_for_its_peer_until_it_expires(void **state)
{
    const struct identity_signer signer = signer_of(1), other = signer_of(2);
    const struct link_key peer = {{9}}, neighbour = {{10}};
    const struct pass pass = {.studio = 7, .job = {1, [15] = 2}, .epoch = 3, .attempt = 1ULL << 40,
                              .rights = PASS_READ | PASS_WRITE,
                              .write_bytes = 1ULL << 40, .expires_wall_s = 1000};
    struct pass back;
    uint8_t text[PASS_BYTES];
    size_t size;

    pass_sign(&signer, &pass, &peer, text, &size);
    assert_true(size <= PASS_BYTES);
    assert_int_equal(pass_open(&signer, text, size, &peer, 999, &back), 0);
    assert_int_equal(back.studio, 7);
    assert_memory_equal(back.job, pass.job, 16);
    assert_int_equal(back.rights, PASS_READ | PASS_WRITE);
    assert_true(back.write_bytes == 1ULL << 40);
    assert_int_equal(back.expires_wall_s, 1000);
    assert_int_equal(pass_open(&signer, text, size, &peer, 1000, &back), IDENTITY_E_EXPIRED);
    assert_int_equal(pass_open(&signer, text, size, &neighbour, 999, &back), IDENTITY_E_FORGED);
    assert_int_equal(pass_open(&other, text, size, &peer, 999, &back), IDENTITY_E_FORGED);
    assert_int_equal(pass_open(&signer, text, size - 1, &peer, 999, &back), IDENTITY_E_FORM);
    assert_int_equal(pass_open(&signer, NULL, 0, &peer, 999, &back), IDENTITY_E_FORM);
    for (size_t i = 0; i < size * 8; i++) {
        text[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(pass_open(&signer, text, size, &peer, 999, &back), i < 8 ? IDENTITY_E_FORM : IDENTITY_E_FORGED);
        text[i / 8] ^= (uint8_t)(1 << i % 8);
    }
}

static void a_wrapped_key_opens_for_its_studio_and_job_only(void **state)
{
    const struct identity_signer signer = signer_of(1), other = signer_of(2);
    const uint8_t job[16] = {1}, neighbour[16] = {2}, key[32] = {3};
    uint8_t wrapped[WRAPPED_BYTES], again[WRAPPED_BYTES], back[32] = {0};

    assert_int_equal(job_key_wrap(&signer, 5, job, key, wrapped), 0);
    assert_int_equal(job_key_wrap(&signer, 5, job, key, again), 0);
    assert_memory_not_equal(wrapped, again, 12);
    assert_int_equal(job_key_unwrap(&signer, 6, job, wrapped, back), IDENTITY_E_FORGED);
    assert_int_equal(job_key_unwrap(&signer, 5, neighbour, wrapped, back), IDENTITY_E_FORGED);
    assert_int_equal(job_key_unwrap(&other, 5, job, wrapped, back), IDENTITY_E_FORGED);
    for (size_t i = 0; i < sizeof(wrapped) * 8; i++) {
        wrapped[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(job_key_unwrap(&signer, 5, job, wrapped, back), IDENTITY_E_FORGED);
        wrapped[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    assert_memory_equal(back, (uint8_t[32]){0}, 32);
    assert_int_equal(job_key_unwrap(&signer, 5, job, wrapped, back), 0);
    assert_memory_equal(back, key, 32);
}

static void every_key_of_a_job_is_another(void **state)
{
    const uint8_t job_key[32] = {1}, other[32] = {2};
    uint8_t keys[8][32];

    job_key_in(job_key, keys[0]);
    job_key_in(other, keys[1]);
    job_key_out(job_key, 0, 0, 0, keys[2]);
    job_key_out(job_key, 1, 0, 0, keys[3]);
    job_key_out(job_key, 0, 1, 0, keys[4]);
    job_key_out(job_key, 0, 0, 1, keys[5]);
    job_key_out(job_key, 0, 1ULL << 32, 0, keys[6]);
    job_key_log(keys[2], keys[7]);
    for (size_t i = 1; i < 8; i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(keys[i], keys[j], 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_file_is_private_read_back_and_never_written_over),
        cmocka_unit_test(a_new_keys_text_is_no_option),
        cmocka_unit_test(a_key_file_with_any_byte_changed_is_refused),
        cmocka_unit_test(a_key_has_one_text),
        cmocka_unit_test(a_secret_is_made_once_and_kept),
        cmocka_unit_test(a_ticket_holds_for_its_lease_its_worker_and_its_broker_only),
        cmocka_unit_test(a_pass_opens_for_its_peer_until_it_expires),
        cmocka_unit_test(a_wrapped_key_opens_for_its_studio_and_job_only),
        cmocka_unit_test(every_key_of_a_job_is_another),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

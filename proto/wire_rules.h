/* wire_rules.h - what a message may hold: for wire.c, which lets nothing through that was not looked at.
 *
 * Errors:  WIRE_E_LIMIT, WIRE_E_FORM, and a sentence that is valid until the thread's next call.
 */
#pragma once

#include <proto/wire.h>

int wire_check(const ProtobufCMessage *message, const char **ret_why);
void wire_wipe(const ProtobufCMessage *message); /* keys in it */
/* "message: ...", where the sentences of wire_check are kept. */
const char *wire_say(const char *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

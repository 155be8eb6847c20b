/* list.h - an intrusive doubly linked list; a node that is not linked points to itself. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *previous;
};

static inline void list_init(struct list *list)
{
    list->next = list->previous = list;
}

static inline bool list_empty(const struct list *list)
{
    return list->next == list;
}

static inline void list_insert_before(struct list *position, struct list *node)
{
    node->previous = position->previous;
    node->next = position;
    position->previous->next = node;
    position->previous = node;
}

/* `list_push` adds at the end. */
static inline void list_push(struct list *list, struct list *node)
{
    list_insert_before(list, node);
}

static inline void list_unlink(struct list *node)
{
    node->previous->next = node->next;
    node->next->previous = node->previous;
    list_init(node);
}

#define list_entry(node, type, member) ((type *)((char *)(node)-offsetof(type, member)))
/* `head` is evaluated more than once; a parameter called `list` would rename the type. */
#define list_for_each(node, head)                                                                  \
    for (struct list *node = (head)->next; node != (head); node = node->next)
#define list_for_each_safe(node, after, head)                                                      \
    for (struct list *node = (head)->next, *after = node->next; node != (head);                    \
         node = after, after = node->next)

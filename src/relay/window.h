/*
 * window.h
 *		The events that a relay has sent and the broker has not confirmed.
 *
 * Confirmations come in any order; what counts is the highest position up to
 * which everything is confirmed.
 */
#ifndef EVENTSRC_WINDOW_H
#define EVENTSRC_WINDOW_H

#include "postgres.h"

/* bounds of what one relay holds in memory */
#define ES_WINDOW_EVENTS	32768	/* a power of two */
#define ES_WINDOW_BYTES		(16 * 1024 * 1024)

typedef struct EsWindowEntry
{
	int64		position;
	uint32		size;
	bool		confirmed;
} EsWindowEntry;

typedef struct EsWindow
{
	uint64		first;			/* sequence number of the oldest unconfirmed */
	uint64		next;			/* sequence number of the next to be added */
	uint64		bytes;			/* size of all unconfirmed, roughly */
	int64		confirmed;		/* everything up to here is confirmed */
	int64		total;			/* how many were confirmed, ever */
	EsWindowEntry entries[ES_WINDOW_EVENTS];
} EsWindow;

extern EsWindow *es_window_create(void);
extern void es_window_reset(EsWindow *window, int64 position);
extern bool es_window_has_room(EsWindow *window, size_t size);
extern uint64 es_window_add(EsWindow *window, int64 position, size_t size);
extern int64 es_window_position(EsWindow *window, uint64 sequence);
extern void es_window_confirm(EsWindow *window, uint64 sequence);
extern void es_window_confirm_through(EsWindow *window, uint64 sequence);
extern uint64 es_window_pending(EsWindow *window);

#endif							/* EVENTSRC_WINDOW_H */

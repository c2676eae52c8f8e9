/*
 * window.c
 *		The events that a relay has sent and the broker has not confirmed.
 */
#include "relay/window.h"

#include "utils/memutils.h"

static void advance(EsWindow *window);
static EsWindowEntry *entry_of(EsWindow *window, uint64 sequence);

/*
 * es_window_create makes an empty window that lives as long as the process.
 */
EsWindow *
es_window_create(void)
{
	return MemoryContextAllocZero(TopMemoryContext, sizeof(EsWindow));
}

/*
 * es_window_reset forgets what is pending: sending begins anew after position.
 */
void
es_window_reset(EsWindow *window, int64 position)
{
	window->first = window->next;
	window->bytes = 0;
	window->confirmed = position;
}

/*
 * es_window_has_room tells whether an event of a size may be sent now.  One
 * that is larger than the whole window goes alone.
 */
bool
es_window_has_room(EsWindow *window, size_t size)
{
	uint64		pending = es_window_pending(window);

	return pending == 0 ||
		(pending < ES_WINDOW_EVENTS && window->bytes + size <= ES_WINDOW_BYTES);
}

/*
 * es_window_add notes that the event at a position is sent, and returns the
 * sequence number by which it will be confirmed.
 */
uint64
es_window_add(EsWindow *window, int64 position, size_t size)
{
	uint64		sequence = window->next++;
	EsWindowEntry *entry = entry_of(window, sequence);

	Assert(window->next - window->first <= ES_WINDOW_EVENTS);
	entry->position = position;
	entry->size = (uint32) Min(size, PG_UINT32_MAX);
	entry->confirmed = false;
	window->bytes += entry->size;
	return sequence;
}

/*
 * es_window_position returns the position of a pending event, or -1.
 */
int64
es_window_position(EsWindow *window, uint64 sequence)
{
	if (sequence < window->first || sequence >= window->next)
		return -1;
	return entry_of(window, sequence)->position;
}

/*
 * es_window_confirm notes that an event has arrived; one of a window that was
 * reset since is ignored.
 */
void
es_window_confirm(EsWindow *window, uint64 sequence)
{
	if (sequence < window->first || sequence >= window->next)
		return;
	entry_of(window, sequence)->confirmed = true;
	advance(window);
}

/*
 * es_window_confirm_through notes that an event and all before it have arrived.
 */
void
es_window_confirm_through(EsWindow *window, uint64 sequence)
{
	for (uint64 i = window->first; i < window->next && i <= sequence; i++)
		entry_of(window, i)->confirmed = true;
	advance(window);
}

/*
 * es_window_pending counts what is not confirmed (or stands behind such).
 */
uint64
es_window_pending(EsWindow *window)
{
	return window->next - window->first;
}

/*
 * advance passes over what is confirmed.
 */
static void
advance(EsWindow *window)
{
	while (window->first < window->next)
	{
		EsWindowEntry *entry = entry_of(window, window->first);

		if (!entry->confirmed)
			break;
		window->confirmed = entry->position;
		window->bytes -= entry->size;
		window->first++;
		window->total++;
	}
}

/*
 * entry_of returns the place of a sequence number in the ring.
 */
static EsWindowEntry *
entry_of(EsWindow *window, uint64 sequence)
{
	return &window->entries[sequence & (ES_WINDOW_EVENTS - 1)];
}

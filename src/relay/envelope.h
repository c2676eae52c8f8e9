/*
 * envelope.h
 *		Events as messages.
 */
#ifndef EVENTSRC_ENVELOPE_H
#define EVENTSRC_ENVELOPE_H

#include "read/upcast.h"
#include "relay/content.h"

/* an event that could not be sent */
typedef struct EsDeadLetter
{
	int64		position;
	bool		skip;			/* not even as a dead letter */
	char	   *reason;
} EsDeadLetter;

/* a part of the buffer */
typedef struct EsSlice
{
	int			offset;			/* -1: absent */
	int			length;
} EsSlice;

/* a relay's messages, and the one in the making */
typedef struct EsEnvelope
{
	const EsRelay *relay;
	const EsBrokerType *type;
	EsSelect   *select;
	EsTemplate *topic;
	EsTemplate *key;
	EsTemplate *source;
	EsTemplate *dead_topic;
	const char *own_names[ES_MAX_OWN_HEADERS];
	EsTemplate *own_values[ES_MAX_OWN_HEADERS];
	StringInfoData store;		/* its name */
	int			ndead;
	EsDeadLetter *dead;			/* by position */

	EsUpcasters *upcasters;		/* for this page, or NULL */
	int64		busy;			/* the position of the event at work */
	Datum		data;			/* what goes out as the event's data */
	bool		tombstone;		/* the message has no value */
	EsDeadLetter *dead_letter;	/* the event is one, or NULL */
	StringInfoData out;
	StringInfoData scratch;
	StringInfoData text;
	EsSlice		topic_name;
	EsSlice		key_value;
	EsSlice		event_id;
	EsSlice		value;
	int			nheaders;
	const char *names[ES_MAX_HEADERS];
	EsSlice		values[ES_MAX_HEADERS];
} EsEnvelope;

/* envelope.c */
extern EsEnvelope *es_envelope_create(const EsRelay *relay, const EsBrokerType *type);
extern void es_envelope_begin_page(EsEnvelope *envelope, EsStore *store);
extern void es_envelope_end_page(EsEnvelope *envelope);
extern bool es_envelope(EsEnvelope *envelope, TupleTableSlot *slot, EsMessage *message);
extern int64 es_envelope_failed(EsEnvelope *envelope);
extern void es_envelope_data(EsEnvelope *envelope);
extern void es_envelope_header(EsEnvelope *envelope, const char *name);
extern void es_envelope_header_end(EsEnvelope *envelope);

/* cloudevents.c */
extern void es_cloudevent_structured(EsEnvelope *envelope, TupleTableSlot *slot);
extern void es_cloudevent_binary(EsEnvelope *envelope, TupleTableSlot *slot);
extern bool es_cloudevent_has_header(const char *name);

/* dead_letter.c */
extern int	es_dead_letters_load(int64 relay, int64 after, EsDeadLetter **letters);

#endif							/* EVENTSRC_ENVELOPE_H */

/*
 * content.h
 *		What a relay sends: which events, and in which form.
 */
#ifndef EVENTSRC_CONTENT_H
#define EVENTSRC_CONTENT_H

#include "relay/relay.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "relay/template.h"
#include "utils/jsonb.h"

typedef enum EsEnvelopeKind
{
	ES_ENVELOPE_EVENTSRC,
	ES_ENVELOPE_CLOUDEVENTS,
	ES_ENVELOPE_CLOUDEVENTS_BINARY,
	ES_ENVELOPE_RAW,
	ES_ENVELOPE_DEBEZIUM
} EsEnvelopeKind;

/* the headers that an option may add */
#define ES_MAX_OWN_HEADERS	12

/* the options of a relay */
typedef struct EsContent
{
	const char *delivery;		/* NULL: as the broker type can */
	const char *key;			/* template */
	const char *source;			/* template, of CloudEvents */
	List	   *aggregate_types;	/* strings; NIL: all */
	List	   *event_types;
	const char *filter;			/* functions, by qualified name, or NULL */
	const char *transform;
	EsEnvelopeKind envelope;
	bool		tombstones;
	bool		upcast;
	int			lanes;
	bool		replicated;		/* send_after */
	bool		dead_letter;	/* on_error */
	const char *dead_letter_topic;	/* template, or NULL */
	int			nheaders;
	const char *header_names[ES_MAX_OWN_HEADERS];
	const char *header_values[ES_MAX_OWN_HEADERS];	/* templates */
} EsContent;

/*
 * content.c: es_content_parse raises an error unless the options are good for
 * a broker of that type (NULL: they were checked before).  With check it is the user's input: functions are
 * looked up, and *options is changed to hold their full names.
 */
extern EsContent *es_content_parse(Jsonb **options, const EsBrokerType *type, bool check);
extern Jsonb *es_content_merge(Jsonb *before, Jsonb *changes);

/* own_headers.c: raises an error for names that are taken */
extern void es_own_headers_check(const EsContent *content, const EsBrokerType *type);

/* select.c: the functions of users, called as the current user */
typedef struct EsSelect EsSelect;

extern char *es_select_check(const char *function, const char *option, Oid result);
extern char *es_select_problem(const EsContent *content, Oid owner);
extern EsSelect *es_select_create(const EsRelay *relay);
extern bool es_select(EsSelect *select, TupleTableSlot *slot, Datum *data);

/* es_put appends bytes, as appendBinaryStringInfo() does, with less ado. */
static inline void
es_put(StringInfo out, const char *bytes, int length)
{
	if (unlikely(out->maxlen - out->len <= length))
		enlargeStringInfo(out, length);
	memcpy(out->data + out->len, bytes, length);
	out->len += length;
	out->data[out->len] = '\0';
}

/* the same for a literal string */
#define es_put_literal(out, literal)	es_put(out, literal, sizeof(literal) - 1)

/*
 * write.c: text for messages, in UTF-8 (what they are given is, too, but where
 * it says text)
 */
extern void es_write_column(StringInfo out, TupleTableSlot *slot, int field);
extern void es_write_text(StringInfo out, const char *string, int length);
extern void es_write_json_string(StringInfo out, const char *string, int length);
extern void es_write_json_text(StringInfo out, const char *string, int length);
extern void es_write_uri(StringInfo out, const char *text, int length);
extern void es_write_attribute(StringInfo out, const char *text, int length);
extern void es_write_jsonb(StringInfo out, Datum value);

#endif							/* EVENTSRC_CONTENT_H */

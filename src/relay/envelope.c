/*
 * envelope.c
 *		An event as a message: key, headers and the JSON envelope.
 *
 * Everything is in UTF-8, whatever the database's encoding.
 */
#include "relay/relay.h"

#include "mb/pg_wchar.h"
#include "pgtime.h"
#include "store/store.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

static char *text_of(TupleTableSlot *slot, int attnum);
static char *json_of(TupleTableSlot *slot, int attnum);
static char *time_text(TimestampTz time);
static void add_string(StringInfo json, const char *name, const char *value);
static void add_header(EsMessage *message, const char *name, const char *value);
static char *as_utf8(char *string, size_t *length);

/*
 * es_envelope fills message from an event's row, in the current memory
 * context.
 */
void
es_envelope(TupleTableSlot *slot, const EsRelay *relay, const EsBrokerType *type,
			EsMessage *message)
{
	StringInfoData json;
	StringInfoData topic;
	char	   *aggregate_type;
	char	   *aggregate_id;
	char	   *event_id;
	char	   *event_type;
	TimestampTz recorded_at;
	int64		version;
	char	   *data;
	bool		isnull;

	slot_getallattrs(slot);
	aggregate_type = text_of(slot, ES_ATT_AGGREGATE_TYPE);
	aggregate_id = text_of(slot, ES_ATT_AGGREGATE_ID);
	event_id = text_of(slot, ES_ATT_EVENT_ID);
	event_type = text_of(slot, ES_ATT_EVENT_TYPE);
	version = DatumGetInt64(slot_getattr(slot, ES_ATT_VERSION, &isnull));
	recorded_at = DatumGetTimestampTz(slot_getattr(slot, ES_ATT_RECORDED_AT, &isnull));
	data = json_of(slot, ES_ATT_DATA);

	message->position = DatumGetInt64(slot_getattr(slot, ES_ATT_GLOBAL_POSITION, &isnull));
	message->timestamp_ms = recorded_at / 1000 +
		((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)) * SECS_PER_DAY * 1000;

	/* the value */
	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	add_string(&json, "eventId", event_id);
	add_string(&json, "eventType", event_type);
	add_string(&json, "aggregateId", aggregate_id);
	add_string(&json, "aggregateType", aggregate_type);
	add_string(&json, "timestamp", time_text(recorded_at));
	add_string(&json, "userId", text_of(slot, ES_ATT_USER_ID));
	appendStringInfo(&json, "\"data\":");
	appendStringInfoString(&json, data ? data : "null");
	appendStringInfo(&json, ",\"version\":" INT64_FORMAT "}", version);
	message->value = as_utf8(json.data, &message->value_length);

	/* where it goes; as a topic's name has only ASCII, its encoding is right */
	initStringInfo(&topic);
	type->topic(&topic, relay->topic, NameStr(relay->store), aggregate_type, event_type);
	message->topic = topic.data;
	message->key = as_utf8(aggregate_id, &message->key_length);
	message->event_id = as_utf8(event_id, &message->event_id_length);

	message->nheaders = 0;
	add_header(message, "event-id", event_id);
	add_header(message, "event-type", event_type);
	add_header(message, "schema-version",
			   psprintf("%d", DatumGetInt32(slot_getattr(slot, ES_ATT_SCHEMA_VERSION, &isnull))));
	add_header(message, "aggregate-type", aggregate_type);
	add_header(message, "version", psprintf(INT64_FORMAT, version));
	add_header(message, "position", psprintf(INT64_FORMAT, message->position));
	add_header(message, "store", pstrdup(NameStr(relay->store)));
	add_header(message, "correlation-id", text_of(slot, ES_ATT_CORRELATION_ID));
	add_header(message, "causation-id", text_of(slot, ES_ATT_CAUSATION_ID));
	add_header(message, "traceparent", text_of(slot, ES_ATT_TRACEPARENT));
	add_header(message, "metadata", json_of(slot, ES_ATT_METADATA));
	(void) slot_getattr(slot, ES_ATT_OCCURRED_AT, &isnull);
	if (!isnull)
		add_header(message, "occurred-at",
				   time_text(DatumGetTimestampTz(slot_getattr(slot, ES_ATT_OCCURRED_AT, &isnull))));
}

/*
 * text_of returns a text column as a string, or NULL.
 */
static char *
text_of(TupleTableSlot *slot, int attnum)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attnum, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * json_of returns a jsonb column as JSON text, or NULL.
 */
static char *
json_of(TupleTableSlot *slot, int attnum)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attnum, &isnull);
	Jsonb	   *jsonb;

	if (isnull)
		return NULL;
	jsonb = DatumGetJsonbP(value);
	return JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
}

/*
 * time_text writes a time as ISO 8601 in UTC: 2024-06-20T10:30:00.123456Z.
 */
static char *
time_text(TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (TIMESTAMP_IS_NOBEGIN(time))
		return pstrdup("-infinity");
	if (TIMESTAMP_IS_NOEND(time))
		return pstrdup("infinity");
	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return psprintf("%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
					tm.tm_year, tm.tm_mon, tm.tm_mday,
					tm.tm_hour, tm.tm_min, tm.tm_sec, (int) fsec);
}

/*
 * add_string writes a member of the envelope and the comma after it.
 */
static void
add_string(StringInfo json, const char *name, const char *value)
{
	appendStringInfo(json, "\"%s\":", name);
	if (value != NULL)
		escape_json(json, value);
	else
		appendStringInfoString(json, "null");
	appendStringInfoChar(json, ',');
}

/*
 * add_header adds a header, unless its value is NULL.
 */
static void
add_header(EsMessage *message, const char *name, const char *value)
{
	EsHeader   *header;

	if (value == NULL)
		return;
	Assert(message->nheaders < ES_MAX_HEADERS);
	header = &message->headers[message->nheaders++];
	header->name = name;
	header->value = as_utf8(unconstify(char *, value), &header->length);
}

/*
 * as_utf8 converts a string of the database's encoding.
 */
static char *
as_utf8(char *string, size_t *length)
{
	char	   *converted = pg_server_to_any(string, strlen(string), PG_UTF8);

	*length = strlen(converted);
	return converted;
}

/*
 * cloudevents.c
 *		Events as CloudEvents 1.0: as one JSON object (structured mode), or with
 *		the attributes as headers and the data as value (binary mode).
 *
 * Attributes are strings, but for the JSON of schemaversion: an Integer has 32
 * bits there, which versions and positions may exceed.  Their names are lower
 * case letters and digits.
 */
#include "relay/envelope.h"

#include "store/store.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

/* the years 1 to 9999 */
#define RFC3339_FIRST	((TimestampTz) (date2j(1, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)
#define RFC3339_END		((TimestampTz) (date2j(10000, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

/* the attributes that are columns, required ones first */
static const struct
{
	const char *name;
	const char *kafka;			/* the header in Kafka's binding */
	const char *amqp;			/* and in AMQP's */
	int			column;
}			attributes[] =

{
	{"id", "ce_id", "cloudEvents_id", ES_ATT_EVENT_ID},
	{"type", "ce_type", "cloudEvents_type", ES_ATT_EVENT_TYPE},
	{"subject", "ce_subject", "cloudEvents_subject", ES_ATT_AGGREGATE_ID},
	{"time", "ce_time", "cloudEvents_time", ES_ATT_RECORDED_AT},
	{"aggregatetype", "ce_aggregatetype", "cloudEvents_aggregatetype", ES_ATT_AGGREGATE_TYPE},
	{"streamversion", "ce_streamversion", "cloudEvents_streamversion", ES_ATT_VERSION},
	{"position", "ce_position", "cloudEvents_position", ES_ATT_GLOBAL_POSITION},
	{"schemaversion", "ce_schemaversion", "cloudEvents_schemaversion", ES_ATT_SCHEMA_VERSION},
	{"userid", "ce_userid", "cloudEvents_userid", ES_ATT_USER_ID},
	{"correlationid", "ce_correlationid", "cloudEvents_correlationid", ES_ATT_CORRELATION_ID},
	{"causationid", "ce_causationid", "cloudEvents_causationid", ES_ATT_CAUSATION_ID},
	{"traceparent", "ce_traceparent", "cloudEvents_traceparent", ES_ATT_TRACEPARENT},
	{"occurredat", "ce_occurredat", "cloudEvents_occurredat", ES_ATT_OCCURRED_AT},
	{"metadata", "ce_metadata", "cloudEvents_metadata", ES_ATT_METADATA},
};

static bool has_attribute(TupleTableSlot *slot, int column);
static void write_attribute(EsEnvelope *envelope, StringInfo out, TupleTableSlot *slot, int column);
static void write_source(EsEnvelope *envelope, StringInfo out, TupleTableSlot *slot);

/*
 * es_cloudevent_structured writes an event in structured mode.
 */
void
es_cloudevent_structured(EsEnvelope *envelope, TupleTableSlot *slot)
{
	StringInfo	out = &envelope->out;

	if (envelope->tombstone)
		return;
	envelope->value.offset = out->len;
	appendStringInfoString(out, "{\"specversion\":\"1.0\",\"source\":\"");
	write_source(envelope, out, slot);
	appendStringInfoString(out, "\",\"datacontenttype\":\"application/json\"");
	for (int i = 0; i < lengthof(attributes); i++)
	{
		int			column = attributes[i].column;

		if (!has_attribute(slot, column))
			continue;
		appendBinaryStringInfo(out, ",\"", 2);
		appendStringInfoString(out, attributes[i].name);
		appendBinaryStringInfo(out, "\":", 2);
		if (column == ES_ATT_SCHEMA_VERSION)
		{
			es_write_column(out, slot, column);
			continue;
		}
		resetStringInfo(&envelope->text);
		write_attribute(envelope, &envelope->text, slot, column);
		es_write_json_string(out, envelope->text.data, envelope->text.len);
	}
	appendStringInfoString(out, ",\"data\":");
	es_write_jsonb(out, envelope->data);
	appendStringInfoCharMacro(out, '}');
	envelope->value.length = out->len - envelope->value.offset;

	es_envelope_header(envelope, "content-type");
	appendStringInfoString(out, "application/cloudevents+json; charset=UTF-8");
	es_envelope_header_end(envelope);
}

/*
 * es_cloudevent_binary writes an event in binary mode.
 */
void
es_cloudevent_binary(EsEnvelope *envelope, TupleTableSlot *slot)
{
	StringInfo	out = &envelope->out;
	bool		kafka = envelope->type == &es_kafka_broker;

	if (!envelope->tombstone)
	{
		es_envelope_data(envelope);
		es_envelope_header(envelope, "content-type");
		appendStringInfoString(out, "application/json");
		es_envelope_header_end(envelope);
	}
	es_envelope_header(envelope, kafka ? "ce_specversion" : "cloudEvents_specversion");
	appendStringInfoString(out, "1.0");
	es_envelope_header_end(envelope);
	es_envelope_header(envelope, kafka ? "ce_source" : "cloudEvents_source");
	write_source(envelope, out, slot);
	es_envelope_header_end(envelope);
	for (int i = 0; i < lengthof(attributes); i++)
	{
		if (!has_attribute(slot, attributes[i].column))
			continue;
		es_envelope_header(envelope, kafka ? attributes[i].kafka : attributes[i].amqp);
		write_attribute(envelope, out, slot, attributes[i].column);
		es_envelope_header_end(envelope);
	}
}

/*
 * es_cloudevent_has_header tells whether a header's name is that of an attribute
 * in binary mode, with either broker.  AMQP's binding has two spellings.
 */
bool
es_cloudevent_has_header(const char *name)
{
	const char *attribute;

	if (strncmp(name, "ce_", 3) == 0)
		attribute = name + 3;
	else if (strncmp(name, "cloudEvents_", 12) == 0 || strncmp(name, "cloudEvents:", 12) == 0)
		attribute = name + 12;
	else
		return false;
	if (strcmp(attribute, "specversion") == 0 || strcmp(attribute, "source") == 0)
		return true;
	for (int i = 0; i < lengthof(attributes); i++)
	{
		if (strcmp(attribute, attributes[i].name) == 0)
			return true;
	}
	return false;
}

/*
 * has_attribute tells whether an event has an attribute: a string that is not
 * empty, a time that RFC 3339 can write.
 */
static bool
has_attribute(TupleTableSlot *slot, int column)
{
	Datum		value = slot->tts_values[column - 1];

	if (slot->tts_isnull[column - 1])
		return false;
	switch (column)
	{
		case ES_ATT_OCCURRED_AT:
			return !TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(value)) &&
				DatumGetTimestampTz(value) >= RFC3339_FIRST && DatumGetTimestampTz(value) < RFC3339_END;
		case ES_ATT_USER_ID:
		case ES_ATT_CORRELATION_ID:
		case ES_ATT_CAUSATION_ID:
		case ES_ATT_TRACEPARENT:
			return VARSIZE_ANY_EXHDR(DatumGetPointer(value)) > 0;
		default:
			return true;
	}
}

/*
 * write_attribute writes a column as the value of an attribute.
 */
static void
write_attribute(EsEnvelope *envelope, StringInfo out, TupleTableSlot *slot, int column)
{
	resetStringInfo(&envelope->scratch);
	es_write_column(&envelope->scratch, slot, column);
	es_write_attribute(out, envelope->scratch.data, envelope->scratch.len);
}

/*
 * write_source writes the source, a URI reference.
 */
static void
write_source(EsEnvelope *envelope, StringInfo out, TupleTableSlot *slot)
{
	for (int i = 0; i < envelope->source->nparts; i++)
	{
		const EsTemplatePart *part = &envelope->source->parts[i];

		if (part->field == ES_FIELD_LITERAL)
			appendBinaryStringInfo(out, part->text, part->length);
		else if (part->field == ES_FIELD_STORE)
			es_write_uri(out, envelope->store.data, envelope->store.len);
		else
		{
			resetStringInfo(&envelope->scratch);
			es_write_column(&envelope->scratch, slot, part->field);
			es_write_uri(out, envelope->scratch.data, envelope->scratch.len);
		}
	}
}

/*
 * envelope.c
 *		An event as a message: topic, key, headers and value.
 *
 * All that a message holds is written behind each other into one buffer, which
 * is used again for the next event.
 */
#include "relay/envelope.h"

#include "append/append.h"
#include "store/store.h"
#include "utils/timestamp.h"
#include "store/texts.h"

static bool is_dead(EsEnvelope *envelope, int64 position);
static bool closes_stream(TupleTableSlot *slot);
static void begin_message(EsEnvelope *envelope, TupleTableSlot *slot, EsMessage *message);
static void finish_message(EsEnvelope *envelope, EsMessage *message);
static void fill_eventsrc(EsEnvelope *envelope, TupleTableSlot *slot);
static void fill_debezium(EsEnvelope *envelope, TupleTableSlot *slot);
static void fill_dead_letter(EsEnvelope *envelope, TupleTableSlot *slot);
static void begin_object(EsEnvelope *envelope, TupleTableSlot *slot);
static void end_object(EsEnvelope *envelope);
static void write_member(EsEnvelope *envelope, const char *name, TupleTableSlot *slot, int column);
static void add_column(EsEnvelope *envelope, const char *name, TupleTableSlot *slot, int column);
static void add_plain_headers(EsEnvelope *envelope, TupleTableSlot *slot);
static void add_own_headers(EsEnvelope *envelope, TupleTableSlot *slot);
static EsSlice write_template(EsEnvelope *envelope, const EsTemplate *template, TupleTableSlot *slot);
static EsSlice write_topic(EsEnvelope *envelope, const EsTemplate *template, TupleTableSlot *slot);
static EsTemplate *utf8_template(const char *text);

/*
 * es_envelope_create prepares the messages of a relay, in the current memory
 * context; the relay has no problem.  Needs a transaction.
 */
EsEnvelope *
es_envelope_create(const EsRelay *relay, const EsBrokerType *type)
{
	EsEnvelope *envelope = palloc0(sizeof(EsEnvelope));
	const EsContent *content = relay->content;

	envelope->relay = relay;
	envelope->type = type;
	envelope->select = es_select_create(relay);
	envelope->topic = utf8_template(relay->topic);
	envelope->key = utf8_template(content->key);
	envelope->source = utf8_template(content->source);
	if (content->dead_letter_topic != NULL)
		envelope->dead_topic = utf8_template(content->dead_letter_topic);
	for (int i = 0; i < content->nheaders; i++)
	{
		StringInfoData name;

		initStringInfo(&name);
		es_write_text(&name, content->header_names[i], strlen(content->header_names[i]));
		envelope->own_names[i] = name.data;
		envelope->own_values[i] = utf8_template(content->header_values[i]);
	}
	envelope->ndead = es_dead_letters_load(relay->id, relay->position, &envelope->dead);
	initStringInfo(&envelope->out);
	initStringInfo(&envelope->scratch);
	initStringInfo(&envelope->text);
	initStringInfo(&envelope->store);
	es_write_text(&envelope->store, NameStr(relay->store), strlen(NameStr(relay->store)));
	return envelope;
}

/*
 * es_envelope_begin_page prepares the upcasters of a store for the events of
 * this transaction.
 */
void
es_envelope_begin_page(EsEnvelope *envelope, EsStore *store)
{
	envelope->upcasters = envelope->relay->content->upcast ? es_upcasters_open(store) : NULL;
}

/*
 * es_envelope_end_page frees what es_envelope_begin_page() made.
 */
void
es_envelope_end_page(EsEnvelope *envelope)
{
	if (envelope->upcasters != NULL)
		es_upcasters_close(envelope->upcasters);
	envelope->upcasters = NULL;
}

/*
 * es_envelope fills message from an event's row; false if the event is not to
 * be sent.  The position is set in any case.  The message is good until the
 * next call; what else is needed meanwhile is in the current memory context.
 */
bool
es_envelope(EsEnvelope *envelope, TupleTableSlot *slot, EsMessage *message)
{
	const EsContent *content = envelope->relay->content;
	bool		isnull;

	message->position = DatumGetInt64(slot_getattr(slot, ES_ATT_GLOBAL_POSITION, &isnull));
	envelope->dead_letter = NULL;
	if (!es_lane_takes(envelope->relay, slot))
		return false;
	if (envelope->ndead > 0 && is_dead(envelope, message->position))
	{
		if (envelope->dead_topic == NULL || envelope->dead_letter->skip)
			return false;
		slot_getallattrs(slot);
		begin_message(envelope, slot, message);
		fill_dead_letter(envelope, slot);
		finish_message(envelope, message);
		return true;
	}

	envelope->busy = message->position;
	if (envelope->upcasters != NULL)
		slot = es_upcast(envelope->upcasters, slot);
	slot_getallattrs(slot);
	envelope->data = slot->tts_values[ES_ATT_DATA - 1];
	if (!es_select(envelope->select, slot, &envelope->data))
	{
		envelope->busy = 0;
		return false;
	}
	begin_message(envelope, slot, message);
	envelope->tombstone = content->tombstones && closes_stream(slot);
	switch (content->envelope)
	{
		case ES_ENVELOPE_EVENTSRC:
			fill_eventsrc(envelope, slot);
			break;
		case ES_ENVELOPE_RAW:
			add_plain_headers(envelope, slot);
			if (!envelope->tombstone)
				es_envelope_data(envelope);
			break;
		case ES_ENVELOPE_DEBEZIUM:
			fill_debezium(envelope, slot);
			break;
		case ES_ENVELOPE_CLOUDEVENTS:
			es_cloudevent_structured(envelope, slot);
			break;
		case ES_ENVELOPE_CLOUDEVENTS_BINARY:
			es_cloudevent_binary(envelope, slot);
			break;
	}
	add_own_headers(envelope, slot);
	finish_message(envelope, message);
	envelope->busy = 0;
	return true;
}

/*
 * es_envelope_failed returns the position of the event for which
 * es_envelope() raised an error, 0 if it did not.
 */
int64
es_envelope_failed(EsEnvelope *envelope)
{
	int64		position = envelope->busy;

	envelope->busy = 0;
	return position;
}

/*
 * es_envelope_data writes the event's data as the message's value.
 */
void
es_envelope_data(EsEnvelope *envelope)
{
	envelope->value.offset = envelope->out.len;
	es_write_jsonb(&envelope->out, envelope->data);
	envelope->value.length = envelope->out.len - envelope->value.offset;
}

/*
 * es_envelope_header adds a header whose value follows, up to
 * es_envelope_header_end().
 */
void
es_envelope_header(EsEnvelope *envelope, const char *name)
{
	Assert(envelope->nheaders < ES_MAX_HEADERS);
	envelope->names[envelope->nheaders] = name;
	envelope->values[envelope->nheaders].offset = envelope->out.len;
}

/*
 * es_envelope_header_end ends a header's value.
 */
void
es_envelope_header_end(EsEnvelope *envelope)
{
	EsSlice    *value = &envelope->values[envelope->nheaders++];

	value->length = envelope->out.len - value->offset;
}

/*
 * is_dead tells whether the event at a position is a dead letter.
 */
static bool
is_dead(EsEnvelope *envelope, int64 position)
{
	int			low = 0;
	int			high = envelope->ndead - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		EsDeadLetter *letter = &envelope->dead[middle];

		if (letter->position == position)
		{
			envelope->dead_letter = letter;
			return true;
		}
		if (letter->position < position)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return false;
}

/*
 * closes_stream tells whether an event is the last of its stream.
 */
static bool
closes_stream(TupleTableSlot *slot)
{
	return es_text_is(DatumGetTextPP(slot->tts_values[ES_ATT_EVENT_TYPE - 1]), ES_CLOSING_TYPE);
}

/*
 * begin_message writes what all messages have: topic, key, id and time.
 */
static void
begin_message(EsEnvelope *envelope, TupleTableSlot *slot, EsMessage *message)
{
	TimestampTz recorded_at = DatumGetTimestampTz(slot->tts_values[ES_ATT_RECORDED_AT - 1]);

	resetStringInfo(&envelope->out);
	envelope->nheaders = 0;
	envelope->value.offset = -1;
	envelope->tombstone = false;
	message->timestamp_ms = recorded_at / 1000 +
		((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)) * SECS_PER_DAY * 1000;

	envelope->topic_name = write_topic(envelope, envelope->dead_letter ? envelope->dead_topic : envelope->topic, slot);
	envelope->event_id.offset = envelope->out.len;
	es_write_column(&envelope->out, slot, ES_ATT_EVENT_ID);
	envelope->event_id.length = envelope->out.len - envelope->event_id.offset;
	envelope->key_value = write_template(envelope, envelope->key, slot);
}

/*
 * finish_message points into the buffer, which does not move any more.
 */
static void
finish_message(EsEnvelope *envelope, EsMessage *message)
{
	const char *data = envelope->out.data;

	message->topic = data + envelope->topic_name.offset;
	message->event_id = data + envelope->event_id.offset;
	message->event_id_length = envelope->event_id.length;
	message->key = data + envelope->key_value.offset;
	message->key_length = envelope->key_value.length;
	message->value = envelope->value.offset < 0 ? NULL : data + envelope->value.offset;
	message->value_length = envelope->value.offset < 0 ? 0 : envelope->value.length;
	message->nheaders = envelope->nheaders;
	for (int i = 0; i < envelope->nheaders; i++)
	{
		message->headers[i].name = envelope->names[i];
		message->headers[i].value = data + envelope->values[i].offset;
		message->headers[i].length = envelope->values[i].length;
	}
}

/*
 * begin_object begins a value that is a JSON object with what says which event
 * it is; other members follow, up to end_object().
 */
static void
begin_object(EsEnvelope *envelope, TupleTableSlot *slot)
{
	envelope->value.offset = envelope->out.len;
	es_put_literal(&envelope->out, "{");
	write_member(envelope, "\"eventId\":", slot, ES_ATT_EVENT_ID);
	write_member(envelope, "\"eventType\":", slot, ES_ATT_EVENT_TYPE);
	write_member(envelope, "\"aggregateId\":", slot, ES_ATT_AGGREGATE_ID);
	write_member(envelope, "\"aggregateType\":", slot, ES_ATT_AGGREGATE_TYPE);
}

/*
 * end_object ends the value.
 */
static void
end_object(EsEnvelope *envelope)
{
	es_put_literal(&envelope->out, "}");
	envelope->value.length = envelope->out.len - envelope->value.offset;
}

/*
 * write_member writes a member of a JSON object, a string or null, and a comma.
 * Its name comes with quotes and colon.
 */
static void
write_member(EsEnvelope *envelope, const char *name, TupleTableSlot *slot, int column)
{
	StringInfo	out = &envelope->out;

	es_put(out, name, strlen(name));
	if (slot->tts_isnull[column - 1])
		es_put_literal(out, "null");
	else if (column == ES_ATT_RECORDED_AT || column == ES_ATT_GLOBAL_POSITION)
	{
		/* nothing is to be escaped there */
		es_put_literal(out, "\"");
		es_write_column(out, slot, column);
		es_put_literal(out, "\"");
	}
	else
	{
		text	   *string = DatumGetTextPP(slot->tts_values[column - 1]);

		es_write_json_text(out, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
	}
	es_put_literal(out, ",");
}

/*
 * fill_eventsrc writes the envelope that needs no explanation.
 */
static void
fill_eventsrc(EsEnvelope *envelope, TupleTableSlot *slot)
{
	StringInfo	out = &envelope->out;

	if (!envelope->tombstone)
	{
		begin_object(envelope, slot);
		write_member(envelope, "\"timestamp\":", slot, ES_ATT_RECORDED_AT);
		write_member(envelope, "\"userId\":", slot, ES_ATT_USER_ID);
		es_put_literal(out, "\"data\":");
		es_write_jsonb(out, envelope->data);
		es_put_literal(out, ",\"version\":");
		es_write_column(out, slot, ES_ATT_VERSION);
		end_object(envelope);
	}
	add_plain_headers(envelope, slot);
}

/*
 * fill_debezium writes what Debezium's outbox event router makes of a row: the
 * payload, and the header "id" (and those that it is mostly told to add).
 */
static void
fill_debezium(EsEnvelope *envelope, TupleTableSlot *slot)
{
	if (!envelope->tombstone)
		es_envelope_data(envelope);
	add_column(envelope, "id", slot, ES_ATT_EVENT_ID);
	add_column(envelope, "eventType", slot, ES_ATT_EVENT_TYPE);
	add_column(envelope, "aggregateType", slot, ES_ATT_AGGREGATE_TYPE);
	add_column(envelope, "traceparent", slot, ES_ATT_TRACEPARENT);
}

/*
 * fill_dead_letter writes what stands for an event that could not be sent.
 */
static void
fill_dead_letter(EsEnvelope *envelope, TupleTableSlot *slot)
{
	StringInfo	out = &envelope->out;

	begin_object(envelope, slot);
	write_member(envelope, "\"position\":", slot, ES_ATT_GLOBAL_POSITION);
	es_put_literal(out, "\"reason\":");
	es_write_json_text(out, envelope->dead_letter->reason, strlen(envelope->dead_letter->reason));
	end_object(envelope);

	add_column(envelope, "event-id", slot, ES_ATT_EVENT_ID);
	add_column(envelope, "position", slot, ES_ATT_GLOBAL_POSITION);
	es_envelope_header(envelope, "relay");
	es_write_text(out, NameStr(envelope->relay->name), strlen(NameStr(envelope->relay->name)));
	es_envelope_header_end(envelope);
}

/*
 * add_column adds a header with the value of a column, unless that is
 * NULL.
 */
static void
add_column(EsEnvelope *envelope, const char *name, TupleTableSlot *slot, int column)
{
	if (slot->tts_isnull[column - 1])
		return;
	es_envelope_header(envelope, name);
	es_write_column(&envelope->out, slot, column);
	es_envelope_header_end(envelope);
}

/*
 * add_plain_headers adds the headers of an envelope that has no rules of its
 * own for them.
 */
static void
add_plain_headers(EsEnvelope *envelope, TupleTableSlot *slot)
{
	add_column(envelope, "event-id", slot, ES_ATT_EVENT_ID);
	add_column(envelope, "event-type", slot, ES_ATT_EVENT_TYPE);
	add_column(envelope, "schema-version", slot, ES_ATT_SCHEMA_VERSION);
	add_column(envelope, "aggregate-type", slot, ES_ATT_AGGREGATE_TYPE);
	add_column(envelope, "version", slot, ES_ATT_VERSION);
	add_column(envelope, "position", slot, ES_ATT_GLOBAL_POSITION);
	es_envelope_header(envelope, "store");
	es_put(&envelope->out, envelope->store.data, envelope->store.len);
	es_envelope_header_end(envelope);
	add_column(envelope, "correlation-id", slot, ES_ATT_CORRELATION_ID);
	add_column(envelope, "causation-id", slot, ES_ATT_CAUSATION_ID);
	add_column(envelope, "traceparent", slot, ES_ATT_TRACEPARENT);
	add_column(envelope, "metadata", slot, ES_ATT_METADATA);
	add_column(envelope, "occurred-at", slot, ES_ATT_OCCURRED_AT);
}

/*
 * add_own_headers adds the headers that the relay's options name.
 */
static void
add_own_headers(EsEnvelope *envelope, TupleTableSlot *slot)
{
	for (int i = 0; i < envelope->relay->content->nheaders; i++)
	{
		es_envelope_header(envelope, envelope->own_names[i]);
		(void) write_template(envelope, envelope->own_values[i], slot);
		es_envelope_header_end(envelope);
	}
}

/*
 * write_template writes the value of a template.
 */
static EsSlice
write_template(EsEnvelope *envelope, const EsTemplate *template, TupleTableSlot *slot)
{
	StringInfo	out = &envelope->out;
	EsSlice		slice = {out->len};

	for (int i = 0; i < template->nparts; i++)
	{
		const EsTemplatePart *part = &template->parts[i];

		if (part->field == ES_FIELD_LITERAL)
			es_put(out, part->text, part->length);
		else if (part->field == ES_FIELD_STORE)
			es_put(out, envelope->store.data, envelope->store.len);
		else
			es_write_column(out, slot, part->field);
	}
	slice.length = out->len - slice.offset;
	return slice;
}

/*
 * write_topic writes the name of a topic, with a zero byte at its end.
 */
static EsSlice
write_topic(EsEnvelope *envelope, const EsTemplate *template, TupleTableSlot *slot)
{
	StringInfo	out = &envelope->out;
	EsSlice		slice = {out->len};

	for (int i = 0; i < template->nparts; i++)
	{
		const EsTemplatePart *part = &template->parts[i];

		if (part->field == ES_FIELD_LITERAL)
			es_put(out, part->text, part->length);
		else if (part->field == ES_FIELD_STORE)
			envelope->type->topic_value(out, envelope->store.data, envelope->store.len);
		else
		{
			resetStringInfo(&envelope->scratch);
			es_write_column(&envelope->scratch, slot, part->field);
			envelope->type->topic_value(out, envelope->scratch.data, envelope->scratch.len);
		}
	}
	envelope->type->topic_end(out, slice.offset);
	slice.length = out->len - slice.offset;
	appendStringInfoCharMacro(out, '\0');
	return slice;
}

/*
 * utf8_template takes a template apart, and converts what it says itself.
 */
static EsTemplate *
utf8_template(const char *text)
{
	EsTemplate *template = es_template_parse(text);

	for (int i = 0; i < template->nparts; i++)
	{
		EsTemplatePart *part = &template->parts[i];
		StringInfoData converted;

		initStringInfo(&converted);
		es_write_text(&converted, part->text, part->length);
		part->text = converted.data;
		part->length = converted.len;
	}
	return template;
}

/*
 * rabbitmq_names.c
 *		A relay's topic for RabbitMQ: "exchange/routing key", with fields.
 *
 * Without a "/" the topic is the routing key, and the server's option
 * "exchange" says where to.  Names may have any characters but control
 * characters, at most 255 bytes; an event's value that would make them longer
 * is cut.  Where a topic is written out, the "/" is always there: what stands
 * before the first one is the exchange, nothing means that of the server.
 */
#include "relay/relay.h"

#include "mb/pg_wchar.h"
#include "relay/rabbitmq.h"

typedef struct Values
{
	const char *store;
	const char *aggregate_type;
	const char *event_type;
} Values;

static int	write_part(StringInfo buffer, const char *from, const char *to, bool exchange,
					   const Values *values);
static const char *match_field(const char *open, const char **after, const Values *values);
static void append_value(StringInfo buffer, const char *value, bool exchange);
static void cut_name(StringInfo buffer, int begin);
static void refuse_topic(const char *template, const char *detail);

/*
 * es_rabbitmq_check_topic raises an error if a template cannot give an exchange
 * and a routing key.
 */
void
es_rabbitmq_check_topic(const char *template)
{
	static const Values none = {"", "", ""};
	const char *slash = strchr(template, '/');
	StringInfoData literal;

	if (*template == '\0')
		refuse_topic(template, "It is empty.");
	if (slash == template)
		refuse_topic(template, "No exchange stands before the \"/\".");

	for (const char *p = template; *p != '\0'; p += pg_mblen(p))
	{
		const char *after;

		if ((unsigned char) *p < 0x20 || *p == 0x7f)
			refuse_topic(template, "Control characters cannot stand in a name.");
		if (*p == '{' && match_field(p, &after, &none) == NULL)
			refuse_topic(template, psprintf("No such field: %.80s", p));
	}

	initStringInfo(&literal);
	if ((slash != NULL && write_part(&literal, template, slash, true, &none) > ES_RABBITMQ_NAME) ||
		write_part(&literal, slash ? slash + 1 : template, template + strlen(template), false, &none) > ES_RABBITMQ_NAME)
		refuse_topic(template, psprintf("A name has at most %d bytes.", ES_RABBITMQ_NAME));
}

/*
 * es_rabbitmq_topic writes the exchange and the routing key of an event into
 * buffer, in UTF-8.
 */
void
es_rabbitmq_topic(StringInfo buffer, const char *template, const char *store,
				  const char *aggregate_type, const char *event_type)
{
	Values		values = {store, aggregate_type, event_type};
	const char *slash = strchr(template, '/');

	resetStringInfo(buffer);
	if (slash != NULL)
		(void) write_part(buffer, template, slash, true, &values);
	appendStringInfoChar(buffer, '/');
	(void) write_part(buffer, slash ? slash + 1 : template, template + strlen(template), false, &values);
}

/*
 * es_rabbitmq_split takes apart what es_rabbitmq_topic wrote; exchange is the
 * one to be used if it names none.
 */
void
es_rabbitmq_split(const char *topic, const char *exchange,
				  amqp_bytes_t *to_exchange, amqp_bytes_t *routing_key)
{
	const char *slash = strchr(topic, '/');

	if (slash == NULL || slash == topic)
		*to_exchange = amqp_cstring_bytes(exchange);
	else
	{
		to_exchange->bytes = unconstify(char *, topic);
		to_exchange->len = slash - topic;
	}
	*routing_key = amqp_cstring_bytes(slash ? slash + 1 : topic);

	/* as RabbitMQ's tools call the exchange that has no name */
	if (to_exchange->len == strlen("amq.default") &&
		memcmp(to_exchange->bytes, "amq.default", to_exchange->len) == 0)
		*to_exchange = amqp_empty_bytes;
}

/*
 * write_part writes one of the names of a template and returns how long it
 * would have been before it was cut.
 */
static int
write_part(StringInfo buffer, const char *from, const char *to, bool exchange,
		   const Values *values)
{
	int			begin = buffer->len;
	int			length;
	const char *p = from;

	while (p < to)
	{
		const char *after;
		const char *value = *p == '{' ? match_field(p, &after, values) : NULL;

		if (value != NULL)
		{
			append_value(buffer, value, exchange);
			p = after;
		}
		else
			appendStringInfoChar(buffer, *p++);
	}

	if (GetDatabaseEncoding() != PG_UTF8)
	{
		char	   *converted = pg_server_to_any(buffer->data + begin, buffer->len - begin, PG_UTF8);

		if (converted != buffer->data + begin)
		{
			buffer->len = begin;
			appendStringInfoString(buffer, converted);
		}
	}
	length = buffer->len - begin;
	cut_name(buffer, begin);
	return length;
}

/*
 * match_field returns the value of the field whose brace stands at open, and
 * sets after to what follows it; NULL if there is no such field.
 */
static const char *
match_field(const char *open, const char **after, const Values *values)
{
	const struct
	{
		const char *text;
		const char *value;
	}			fields[] =
	{
		{"{store}", values->store},
		{"{aggregate_type}", values->aggregate_type},
		{"{event_type}", values->event_type},
	};

	for (int i = 0; i < lengthof(fields); i++)
	{
		size_t		length = strlen(fields[i].text);

		if (strncmp(open, fields[i].text, length) == 0)
		{
			*after = open + length;
			return fields[i].value;
		}
	}
	return NULL;
}

/*
 * append_value appends an event's value; in the name of an exchange "/" becomes
 * "_", as it ends the name.
 */
static void
append_value(StringInfo buffer, const char *value, bool exchange)
{
	int			begin = buffer->len;

	appendStringInfoString(buffer, value);
	for (char *p = buffer->data + begin; exchange && (p = strchr(p, '/')) != NULL; p++)
		*p = '_';
}

/*
 * cut_name cuts what the buffer has from begin on to the length of a name.
 */
static void
cut_name(StringInfo buffer, int begin)
{
	int			length = buffer->len - begin;

	if (length <= ES_RABBITMQ_NAME)
		return;
	length = pg_encoding_mbcliplen(PG_UTF8, buffer->data + begin, length, ES_RABBITMQ_NAME);
	buffer->len = begin + length;
	buffer->data[buffer->len] = '\0';
}

/*
 * refuse_topic raises the error for a bad template.
 */
static void
refuse_topic(const char *template, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_RELAY),
			 errmsg("invalid topic template \"%.300s\"", template),
			 errdetail_internal("%s", detail),
			 errhint("For RabbitMQ a template is a routing key, or an exchange, \"/\" and a routing key; it may have the fields {store}, {aggregate_type} and {event_type}.")));
}

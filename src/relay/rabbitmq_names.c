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
#include "relay/template.h"

/* stands for "/" in an event's value until it is known which name it is in */
#define VALUE_SLASH		'\001'

static void append_name(StringInfo buffer, const char *name, int length, char slash);
static void refuse_topic(const char *template, const char *detail);

/*
 * es_rabbitmq_check_topic raises an error if a template cannot give an exchange
 * and a routing key.
 */
void
es_rabbitmq_check_topic(const char *template)
{
	char	   *problem = es_template_problem(template);
	EsTemplate *parsed;
	int			lengths[2] = {0, 0};
	int			name = 0;

	if (problem != NULL)
		refuse_topic(template, problem);
	if (*template == '/')
		refuse_topic(template, "No exchange stands before the \"/\".");

	parsed = es_template_parse(template);
	for (int i = 0; i < parsed->nparts; i++)
	{
		for (const char *p = parsed->parts[i].text; p < parsed->parts[i].text +parsed->parts[i].length; p++)
		{
			if ((unsigned char) *p < 0x20 || *p == 0x7f)
				refuse_topic(template, "Control characters cannot stand in a name.");
			if (*p == '/' && name == 0)
				name = 1;
			else
				lengths[name]++;
		}
	}
	if (lengths[0] > ES_RABBITMQ_NAME || lengths[1] > ES_RABBITMQ_NAME)
		refuse_topic(template, psprintf("A name has at most %d bytes.", ES_RABBITMQ_NAME));
}

/*
 * es_rabbitmq_topic_value appends an event's value, in UTF-8, with '_' for each
 * control character.
 */
void
es_rabbitmq_topic_value(StringInfo buffer, const char *value, int length)
{
	for (const char *end = value + length; value < end; value++)
		appendStringInfoCharMacro(buffer, *value == '/' ? VALUE_SLASH :
								  (unsigned char) *value < 0x20 || *value == 0x7f ? '_' : *value);
}

/*
 * es_rabbitmq_topic_end makes the exchange, "/" and the routing key of what
 * stands in the buffer from begin on.
 */
void
es_rabbitmq_topic_end(StringInfo buffer, int begin)
{
	int			length = buffer->len - begin;
	char	   *written = pnstrdup(buffer->data + begin, length);
	char	   *slash = strchr(written, '/');
	char	   *key = slash ? slash + 1 : written;

	buffer->len = begin;
	if (slash != NULL)
		append_name(buffer, written, slash - written, '_');
	appendStringInfoChar(buffer, '/');
	append_name(buffer, key, written + length - key, '/');
	pfree(written);
}

/*
 * es_rabbitmq_split takes apart what es_rabbitmq_topic_end() wrote; exchange is the
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
 * append_name appends a name, cut to the length that it may have; slash takes
 * the place of "/" in events' values.  In the name of an exchange that would
 * end the name.
 */
static void
append_name(StringInfo buffer, const char *name, int length, char slash)
{
	int			begin = buffer->len;

	if (length > ES_RABBITMQ_NAME)
		length = pg_encoding_mbcliplen(PG_UTF8, name, length, ES_RABBITMQ_NAME);
	appendBinaryStringInfo(buffer, name, length);
	for (char *p = buffer->data + begin; p < buffer->data + buffer->len; p++)
	{
		if (*p == VALUE_SLASH)
			*p = slash;
	}
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
			 errhint("For RabbitMQ a template is a routing key, or an exchange, \"/\" and a routing key; its fields are %s.",
					 es_template_fields())));
}

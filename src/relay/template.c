/*
 * template.c
 *		Topic templates: "{store}.{aggregate_type}" and the like.
 *
 * Kafka's topic names have letters, digits, '.', '_' and '-', at most 249 of
 * them, and are neither "." nor "..".  Whatever else an event brings into the
 * name becomes '_'; a name that is too long is cut.
 */
#include "relay/relay.h"

#include "mb/pg_wchar.h"

#define TOPIC_LENGTH	249

typedef enum Field
{
	FIELD_NONE,
	FIELD_STORE,
	FIELD_AGGREGATE_TYPE,
	FIELD_EVENT_TYPE
} Field;

static Field match_field(const char *open, const char **after);
static void append_legal(StringInfo buffer, const char *value);
static bool is_topic_char(char c);
static void refuse_topic(const char *template, const char *detail);

/*
 * es_kafka_check_topic raises an error if a template cannot give Kafka topics.
 */
void
es_kafka_check_topic(const char *template)
{
	int			literal = 0;
	bool		fields = false;
	const char *p = template;

	if (*template == '\0')
		refuse_topic(template, "It is empty.");

	while (*p != '\0')
	{
		if (*p == '{')
		{
			const char *after;

			if (match_field(p, &after) == FIELD_NONE)
				refuse_topic(template,
							 psprintf("No such field: %.80s", p));
			fields = true;
			p = after;
			continue;
		}
		if (!is_topic_char(*p))
			refuse_topic(template,
						 psprintf("The character \"%.*s\" cannot stand in a topic's name.",
								  pg_mblen(p), p));
		literal++;
		p++;
	}
	if (literal > TOPIC_LENGTH)
		refuse_topic(template,
					 psprintf("A topic's name has at most %d characters.", TOPIC_LENGTH));
	if (!fields && (strcmp(template, ".") == 0 || strcmp(template, "..") == 0))
		refuse_topic(template, "Kafka has no such topic name.");
}

/*
 * es_kafka_topic writes the topic of an event into buffer.
 */
void
es_kafka_topic(StringInfo buffer, const char *template, const char *store,
			   const char *aggregate_type, const char *event_type)
{
	const char *p = template;

	resetStringInfo(buffer);
	while (*p != '\0')
	{
		const char *after = p + 1;
		const char *value = NULL;

		if (*p == '{')
		{
			switch (match_field(p, &after))
			{
				case FIELD_STORE:
					value = store;
					break;
				case FIELD_AGGREGATE_TYPE:
					value = aggregate_type;
					break;
				case FIELD_EVENT_TYPE:
					value = event_type;
					break;
				case FIELD_NONE:
					break;
			}
		}
		if (value != NULL)
			append_legal(buffer, value);
		else
			appendStringInfoChar(buffer, *p);
		p = after;
	}

	if (buffer->len > TOPIC_LENGTH)
	{
		buffer->len = TOPIC_LENGTH;
		buffer->data[buffer->len] = '\0';
	}
	if (buffer->len == 0 ||
		strcmp(buffer->data, ".") == 0 || strcmp(buffer->data, "..") == 0)
	{
		resetStringInfo(buffer);
		appendStringInfoChar(buffer, '_');
	}
}

/*
 * append_legal appends an event's value, with '_' for each character that
 * cannot stand in a topic's name.
 */
static void
append_legal(StringInfo buffer, const char *value)
{
	for (const char *p = value; *p != '\0'; p += pg_mblen(p))
		appendStringInfoChar(buffer, is_topic_char(*p) ? *p : '_');
}

/*
 * match_field recognises the field whose brace stands at open, and sets after
 * to what follows it.
 */
static Field
match_field(const char *open, const char **after)
{
	static const struct
	{
		const char *text;
		Field		field;
	}			fields[] =
	{
		{"{store}", FIELD_STORE},
		{"{aggregate_type}", FIELD_AGGREGATE_TYPE},
		{"{event_type}", FIELD_EVENT_TYPE},
	};

	for (int i = 0; i < lengthof(fields); i++)
	{
		size_t		length = strlen(fields[i].text);

		if (strncmp(open, fields[i].text, length) == 0)
		{
			*after = open + length;
			return fields[i].field;
		}
	}
	*after = open + 1;
	return FIELD_NONE;
}

/*
 * is_topic_char tells whether Kafka allows the byte in a topic's name.
 */
static bool
is_topic_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
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
			 errhint("A template has letters, digits, \".\", \"_\", \"-\" and the fields {store}, {aggregate_type} and {event_type}.")));
}

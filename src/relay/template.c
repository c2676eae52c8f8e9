/*
 * template.c
 *		Templates, and what Kafka allows in a topic's name.
 *
 * Kafka's topic names have letters, digits, '.', '_' and '-', at most 249 of
 * them, and are neither "." nor "..".  Whatever else an event brings into the
 * name becomes '_'; a name that is too long is cut.
 */
#include "relay/relay.h"

#include "mb/pg_wchar.h"
#include "relay/template.h"
#include "store/store.h"

#define TOPIC_LENGTH	249

static const struct
{
	const char *name;
	int			field;
}			fields[] =

{
	{"store", ES_FIELD_STORE},
	{"aggregate_type", ES_ATT_AGGREGATE_TYPE},
	{"aggregate_id", ES_ATT_AGGREGATE_ID},
	{"version", ES_ATT_VERSION},
	{"event_id", ES_ATT_EVENT_ID},
	{"event_type", ES_ATT_EVENT_TYPE},
	{"schema_version", ES_ATT_SCHEMA_VERSION},
	{"user_id", ES_ATT_USER_ID},
	{"correlation_id", ES_ATT_CORRELATION_ID},
	{"causation_id", ES_ATT_CAUSATION_ID},
	{"traceparent", ES_ATT_TRACEPARENT},
	{"recorded_at", ES_ATT_RECORDED_AT},
	{"occurred_at", ES_ATT_OCCURRED_AT},
	{"global_position", ES_ATT_GLOBAL_POSITION},
	{"transaction", ES_ATT_TRANSACTION},
};

static const char *match_field(const char *open, int *field);
static bool is_topic_char(char c);
static void refuse_topic(const char *template, const char *detail);

/*
 * es_template_problem says what is the matter with a template, or returns
 * NULL.
 */
char *
es_template_problem(const char *text)
{
	const char *p = text;

	if (*text == '\0')
		return pstrdup("It is empty.");
	while (*p != '\0')
	{
		if (*p == '{')
		{
			int			field;
			const char *after = match_field(p, &field);

			if (after == NULL)
				return psprintf("No such field: %.80s.", p);
			p = after;
		}
		else if (*p == '}')
			return pstrdup("A \"}\" closes no field.");
		else
			p += pg_mblen(p);
	}
	return NULL;
}

/*
 * es_template_fields lists the fields.
 */
const char *
es_template_fields(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(fields); i++)
		appendStringInfo(&names, "%s{%s}", i > 0 ? ", " : "", fields[i].name);
	return names.data;
}

/*
 * es_template_parse takes a template apart, in the current memory context.
 */
EsTemplate *
es_template_parse(const char *text)
{
	EsTemplate *template = palloc(offsetof(EsTemplate, parts) +
								  (strlen(text) + 1) * sizeof(EsTemplatePart));
	const char *p = text;

	template->nparts = 0;
	while (*p != '\0')
	{
		EsTemplatePart *part = &template->parts[template->nparts++];

		part->field = ES_FIELD_LITERAL;
		part->length = strcspn(p, "{");
		part->text = pnstrdup(p, part->length);
		if (part->length > 0)
			p += part->length;
		else
			p = match_field(p, &part->field);
		if (p == NULL)
			elog(ERROR, "invalid template \"%s\"", text);
	}
	return template;
}

/*
 * es_kafka_check_topic raises an error if a template cannot give Kafka topics.
 */
void
es_kafka_check_topic(const char *template)
{
	char	   *problem = es_template_problem(template);
	EsTemplate *parsed;
	int			literal = 0;

	if (problem != NULL)
		refuse_topic(template, problem);
	parsed = es_template_parse(template);
	for (int i = 0; i < parsed->nparts; i++)
	{
		for (const char *p = parsed->parts[i].text; *p != '\0'; p++)
		{
			if (!is_topic_char(*p))
				refuse_topic(template,
							 psprintf("The character \"%.*s\" cannot stand in a topic's name.",
									  pg_mblen(p), p));
		}
		literal += parsed->parts[i].length;
	}
	if (literal > TOPIC_LENGTH)
		refuse_topic(template,
					 psprintf("A topic's name has at most %d characters.", TOPIC_LENGTH));
	if (strcmp(template, ".") == 0 || strcmp(template, "..") == 0)
		refuse_topic(template, "Kafka has no such topic name.");
}

/*
 * es_kafka_topic_value appends an event's value, in UTF-8, with '_' for each
 * character that cannot stand in a topic's name.
 */
void
es_kafka_topic_value(StringInfo buffer, const char *value, int length)
{
	const char *end = value + length;

	while (value < end)
	{
		appendStringInfoCharMacro(buffer, is_topic_char(*value) ? *value : '_');
		value += pg_utf_mblen((const unsigned char *) value);
	}
}

/*
 * es_kafka_topic_end makes what stands in the buffer from begin on a legal
 * topic's name.
 */
void
es_kafka_topic_end(StringInfo buffer, int begin)
{
	const char *name = buffer->data + begin;

	if (buffer->len - begin > TOPIC_LENGTH)
	{
		buffer->len = begin + TOPIC_LENGTH;
		buffer->data[buffer->len] = '\0';
	}
	if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
	{
		buffer->len = begin;
		appendStringInfoChar(buffer, '_');
	}
}

/*
 * match_field recognises the field whose brace stands at open, and returns
 * what follows it; NULL if there is no such field.
 */
static const char *
match_field(const char *open, int *field)
{
	const char *name = open + 1;

	for (int i = 0; i < lengthof(fields); i++)
	{
		size_t		length = strlen(fields[i].name);

		if (strncmp(name, fields[i].name, length) == 0 && name[length] == '}')
		{
			*field = fields[i].field;
			return name + length + 1;
		}
	}
	return NULL;
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
			 errhint("A template has letters, digits, \".\", \"_\", \"-\" and fields: %s.",
					 es_template_fields())));
}

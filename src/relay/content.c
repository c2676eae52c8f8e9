/*
 * content.c
 *		The options of a relay, a JSON object, and what they mean.
 */
#include "relay/content.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

/* what a value must be */
typedef enum OptionKind
{
	OPTION_TEXT,
	OPTION_NAMES,				/* array of strings */
	OPTION_BOOLEAN,
	OPTION_LANES,				/* number of them */
	OPTION_TEMPLATE,
	OPTION_TEMPLATES			/* object of templates */
} OptionKind;

typedef struct Option
{
	const char *name;
	OptionKind	kind;
	void		(*set) (EsContent *content, const char *name, const JsonbValue *value,
						const EsBrokerType *type);
} Option;

static void set_delivery(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_template(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_names(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_function(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_envelope(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_flag(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_on_error(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_headers(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_lanes(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);
static void set_send_after(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type);

static const Option options_known[] =
{
	{"aggregate_types", OPTION_NAMES, set_names},
	{"dead_letter_topic", OPTION_TEMPLATE, set_template},
	{"delivery", OPTION_TEXT, set_delivery},
	{"envelope", OPTION_TEXT, set_envelope},
	{"event_types", OPTION_NAMES, set_names},
	{"filter", OPTION_TEXT, set_function},
	{"headers", OPTION_TEMPLATES, set_headers},
	{"key", OPTION_TEMPLATE, set_template},
	{"lanes", OPTION_LANES, set_lanes},
	{"on_error", OPTION_TEXT, set_on_error},
	{"send_after", OPTION_TEXT, set_send_after},
	{"source", OPTION_TEMPLATE, set_template},
	{"tombstones", OPTION_BOOLEAN, set_flag},
	{"transform", OPTION_TEXT, set_function},
	{"upcast", OPTION_BOOLEAN, set_flag},
};

/* in the order of EsEnvelopeKind */
static const char *const envelopes[] =
{
	"eventsrc", "cloudevents", "cloudevents_binary", "raw", "debezium"
};

static void check_kind(const Option *option, const JsonbValue *value);
static bool is_lanes(const JsonbValue *value);
static bool is_strings(const JsonbValue *value);
static char *string_of(const JsonbValue *value);
static List *list_options(void);
static void put_function(Jsonb **options, const char *option, char *name);
static void refuse_choice(const char *name, const char *value, const char *choices);
static void check_source(const char *template);

/*
 * es_content_parse reads a relay's options, in the current memory context.
 */
EsContent *
es_content_parse(Jsonb **options, const EsBrokerType *type, bool check)
{
	EsContent  *content = palloc0(sizeof(EsContent));
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;

	content->key = "{aggregate_id}";
	content->source = "/{store}/{aggregate_type}";
	content->upcast = true;
	content->lanes = 1;

	if (!JB_ROOT_IS_OBJECT(*options))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("options of a relay must be a JSON object"),
				 errhint("For example '{\"envelope\": \"cloudevents\"}'.")));

	iterator = JsonbIteratorInit(&(*options)->root);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) == WJB_KEY)
	{
		const Option *option = NULL;
		char	   *name = string_of(&value);

		(void) JsonbIteratorNext(&iterator, &value, true);
		for (int i = 0; i < lengthof(options_known); i++)
		{
			if (strcmp(options_known[i].name, name) == 0)
				option = &options_known[i];
		}
		if (option == NULL)
		{
			char	   *closest = es_closest_name(name, list_options());
			StringInfoData names;

			initStringInfo(&names);
			for (int i = 0; i < lengthof(options_known); i++)
				appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", options_known[i].name);
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_RELAY),
					 errmsg("a relay has no option \"%.100s\"", name),
					 closest ? errhint("Perhaps you meant the option \"%s\".", closest) :
					 errhint("The options are: %s.", names.data)));
		}
		if (value.type == jbvNull)
			continue;
		check_kind(option, &value);
		option->set(content, option->name, &value, type);
	}

	if (content->dead_letter_topic != NULL && !content->dead_letter)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("option \"dead_letter_topic\" needs \"on_error\": \"dead_letter\""),
				 errhint("Set both, or neither.")));
	if (type != NULL)
		es_own_headers_check(content, type);
	if (check && content->filter != NULL)
		put_function(options, "filter", es_select_check(content->filter, "filter", BOOLOID));
	if (check && content->transform != NULL)
		put_function(options, "transform", es_select_check(content->transform, "transform", JSONBOID));
	return content;
}

/*
 * es_content_merge changes options: those that are named, null takes one away.
 */
Jsonb *
es_content_merge(Jsonb *before, Jsonb *changes)
{
	Datum		merged;

	if (!JB_ROOT_IS_OBJECT(changes))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("options of a relay must be a JSON object"),
				 errhint("For example '{\"envelope\": \"cloudevents\"}'.")));
	merged = DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(before), JsonbPGetDatum(changes));
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_strip_nulls, merged));
}

/*
 * set_delivery takes the option "delivery".
 */
static void
set_delivery(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	char	   *delivery = string_of(value);

	if (strcmp(delivery, "exactly_once") != 0 && strcmp(delivery, "at_least_once") != 0)
		refuse_choice(name, delivery, "exactly_once, at_least_once");
	if (strcmp(delivery, "exactly_once") == 0 && type != NULL && !type->exactly_once)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("brokers of type %s cannot take events exactly once", type->name),
				 errhint("Leave the option \"delivery\" out, and let consumers look at the event's id.")));
	content->delivery = delivery;
}

/*
 * set_template takes the options that are templates.
 */
static void
set_template(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	char	   *template = string_of(value);

	if (strcmp(name, "key") == 0)
		content->key = template;
	else if (strcmp(name, "source") == 0)
	{
		check_source(template);
		content->source = template;
	}
	else
	{
		if (type != NULL)
			type->check_topic(template);
		content->dead_letter_topic = template;
	}
}

/*
 * set_names takes the options that list names.
 */
static void
set_names(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	element;
	List	   *names = NIL;

	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM)
			names = lappend(names, string_of(&element));
	}
	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("option \"%s\" must not be empty", name),
				 errhint("Leave it out to send all of them.")));
	if (strcmp(name, "aggregate_types") == 0)
		content->aggregate_types = names;
	else
		content->event_types = names;
}

/*
 * set_function takes the options that are functions.
 */
static void
set_function(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	if (strcmp(name, "filter") == 0)
		content->filter = string_of(value);
	else
		content->transform = string_of(value);
}

/*
 * set_envelope takes the option "envelope".
 */
static void
set_envelope(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	char	   *envelope = string_of(value);

	for (int i = 0; i < lengthof(envelopes); i++)
	{
		if (strcmp(envelopes[i], envelope) == 0)
		{
			content->envelope = (EsEnvelopeKind) i;
			return;
		}
	}
	refuse_choice(name, envelope, "eventsrc, cloudevents, cloudevents_binary, raw, debezium");
}

/*
 * set_flag takes the options that are true or false.
 */
static void
set_flag(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	if (strcmp(name, "tombstones") == 0)
		content->tombstones = value->val.boolean;
	else
		content->upcast = value->val.boolean;
}

/*
 * set_on_error takes the option "on_error".
 */
static void
set_on_error(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	char	   *choice = string_of(value);

	if (strcmp(choice, "stop") != 0 && strcmp(choice, "dead_letter") != 0)
		refuse_choice(name, choice, "stop, dead_letter");
	content->dead_letter = strcmp(choice, "dead_letter") == 0;
}

/*
 * set_lanes takes the option "lanes".
 */
static void
set_lanes(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	content->lanes = DatumGetInt32(DirectFunctionCall1(numeric_int4, NumericGetDatum(value->val.numeric)));
}

/*
 * set_send_after takes the option "send_after".
 */
static void
set_send_after(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	char	   *choice = string_of(value);

	if (strcmp(choice, "flush") != 0 && strcmp(choice, "replicated") != 0)
		refuse_choice(name, choice, "flush, replicated");
	content->replicated = strcmp(choice, "replicated") == 0;
}

/*
 * set_headers takes the option "headers".
 */
static void
set_headers(EsContent *content, const char *name, const JsonbValue *value, const EsBrokerType *type)
{
	JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	element;

	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		char	   *header;
		char	   *template;
		char	   *problem;

		if (token != WJB_KEY)
			continue;
		header = string_of(&element);
		(void) JsonbIteratorNext(&iterator, &element, true);
		template = string_of(&element);
		problem = es_template_problem(template);
		if (*header == '\0' || strlen(header) > 128)
			problem = "A header's name has between 1 and 128 bytes.";
		if (problem != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_RELAY),
					 errmsg("invalid header \"%.200s\"", header),
					 errdetail_internal("%s", problem),
					 errhint("The fields are: %s.", es_template_fields())));
		if (content->nheaders == ES_MAX_OWN_HEADERS)
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_RELAY),
					 errmsg("option \"%s\" must not have more than %d headers", name, ES_MAX_OWN_HEADERS),
					 errhint("Put the rest into the data, by a transform function.")));
		content->header_names[content->nheaders] = header;
		content->header_values[content->nheaders++] = template;
	}
}

/*
 * check_kind raises an error if an option's value is of the wrong kind.
 */
static void
check_kind(const Option *option, const JsonbValue *value)
{
	const char *wanted = NULL;
	char	   *problem;

	switch (option->kind)
	{
		case OPTION_TEXT:
		case OPTION_TEMPLATE:
			if (value->type != jbvString || value->val.string.len == 0)
				wanted = "a string that is not empty";
			break;
		case OPTION_BOOLEAN:
			if (value->type != jbvBool)
				wanted = "true or false";
			break;
		case OPTION_LANES:
			if (!is_lanes(value))
				wanted = psprintf("a whole number from 1 to %d", ES_MAX_LANES);
			break;
		case OPTION_NAMES:
			if (!is_strings(value) || !JsonContainerIsArray(value->val.binary.data))
				wanted = "an array of strings";
			break;
		case OPTION_TEMPLATES:
			if (!is_strings(value) || !JsonContainerIsObject(value->val.binary.data))
				wanted = "an object whose values are strings";
			break;
	}
	if (wanted != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("option \"%s\" must be %s", option->name, wanted),
				 errhint("For example: %s.",
						 option->kind == OPTION_BOOLEAN ? "{\"tombstones\": true}" :
						 option->kind == OPTION_LANES ? "{\"lanes\": 4}" :
						 option->kind == OPTION_NAMES ? "{\"event_types\": [\"Placed\", \"Shipped\"]}" :
						 option->kind == OPTION_TEMPLATES ? "{\"headers\": {\"tenant\": \"{store}\"}}" :
						 "{\"envelope\": \"cloudevents\"}")));

	if (option->kind == OPTION_TEMPLATE && (problem = es_template_problem(string_of(value))) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_RELAY),
				 errmsg("invalid template \"%.300s\" for option \"%s\"", string_of(value), option->name),
				 errdetail_internal("%s", problem),
				 errhint("The fields are: %s.", es_template_fields())));
}

/*
 * is_lanes tells whether a value is a number of lanes that a relay can have.
 */
static bool
is_lanes(const JsonbValue *value)
{
	if (value->type != jbvNumeric)
		return false;
	for (int i = 1; i <= ES_MAX_LANES; i++)
	{
		if (DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(value->val.numeric),
											 NumericGetDatum(int64_to_numeric(i)))))
			return true;
	}
	return false;
}

/*
 * is_strings tells whether a value is an array or object of nothing but
 * strings.
 */
static bool
is_strings(const JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	element;

	if (value->type != jbvBinary)
		return false;
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		if ((token == WJB_ELEM || token == WJB_VALUE) && element.type != jbvString)
			return false;
	}
	return true;
}

/*
 * string_of copies a JSON string.
 */
static char *
string_of(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/*
 * list_options lists the names of the options.
 */
static List *
list_options(void)
{
	List	   *names = NIL;

	for (int i = 0; i < lengthof(options_known); i++)
		names = lappend(names, unconstify(char *, options_known[i].name));
	return names;
}

/*
 * put_function replaces an option that names a function with its full name.
 */
static void
put_function(Jsonb **options, const char *option, char *name)
{
	JsonbParseState *state = NULL;
	JsonbValue	value;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, option);
	value.val.string.len = strlen(option);
	(void) pushJsonbValue(&state, WJB_KEY, &value);
	value.val.string.val = name;
	value.val.string.len = strlen(name);
	(void) pushJsonbValue(&state, WJB_VALUE, &value);
	*options = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(*options),
												  JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)))));
}

/*
 * refuse_choice raises the error for a value that is none of the choices.
 */
static void
refuse_choice(const char *name, const char *value, const char *choices)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_RELAY),
			 errmsg("invalid value \"%.100s\" for option \"%s\"", value, name),
			 errhint("The choices are: %s.", choices)));
}

/*
 * check_source raises an error if a template cannot give a URI reference,
 * which the source of a CloudEvent is.
 */
static void
check_source(const char *template)
{
	EsTemplate *parsed = es_template_parse(template);

	for (int i = 0; i < parsed->nparts; i++)
	{
		const char *text = parsed->parts[i].text;
		size_t		legal = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?#[]@!$&'()*+,;=%");

		if (parsed->parts[i].field == ES_FIELD_LITERAL && text[legal] != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_ES_INVALID_RELAY),
					 errmsg("invalid template \"%.300s\" for option \"source\"", template),
					 errdetail("The source of a CloudEvent is a URI or a path, in which this cannot stand: %.80s", text +legal),
					 errhint("For example \"https://shop.example/{store}/{aggregate_type}\".")));
	}
}

/*
 * json_schema.h
 *		JSON Schema, drafts 4, 6 and 7, on jsonb.
 *
 *		compile.c		a schema as a graph of nodes
 *		reference.c		$id and $ref
 *		pattern.c		regular expressions of ECMA 262, for PostgreSQL's engine
 *		automaton.c		the simple ones, without it; automaton_parse.c
 *		check.c			a value against the nodes
 *		compatible.c	one schema against another
 *		values.c		parts, order and pointers of jsonb
 *		metaschema.c	the drafts that are known, and the schemas of their schemas
 */
#ifndef EVENTSRC_JSON_SCHEMA_H
#define EVENTSRC_JSON_SCHEMA_H

#include "eventsrc.h"

#include "regex/regex.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

/* types of values, as bits */
#define ES_JSON_NULL		0x01
#define ES_JSON_BOOLEAN		0x02
#define ES_JSON_OBJECT		0x04
#define ES_JSON_ARRAY		0x08
#define ES_JSON_STRING		0x10
#define ES_JSON_NUMBER		0x20
#define ES_JSON_INTEGER		0x40	/* numbers without a fraction only */

typedef struct EsSchemaNode EsSchemaNode;
typedef struct EsAutomaton EsAutomaton;

/* a regular expression */
typedef struct EsPattern
{
	EsAutomaton *automaton;		/* NULL: the server's engine is asked */
	bool		has_regex;		/* only then */
	regex_t		regex;
} EsPattern;

/* a text with its length; not terminated */
typedef struct EsSchemaKey
{
	const char *name;
	int			length;
} EsSchemaKey;

/* a subschema under a name: of properties, patternProperties, dependencies */
typedef struct EsSchemaMember
{
	EsSchemaKey key;
	EsSchemaNode *node;			/* NULL: of dependencies, names only */
	EsPattern  *pattern;		/* of patternProperties */
	int			nnames;
	EsSchemaKey *names;
} EsSchemaMember;

typedef struct EsSchemaList
{
	int			count;
	EsSchemaNode **nodes;
} EsSchemaList;

struct EsSchemaNode
{
	JsonbValue	source;			/* what it was made of */
	bool		never;			/* the schema false */
	bool		has_ref;
	char	   *ref_uri;		/* absolute, or a mere fragment */
	char	   *ref_place;		/* a JSON pointer */
	EsSchemaNode *ref;			/* then nothing else counts */
	int			mark;			/* of a walk over the graph */
	bool		combines;		/* there is something from all_of on */

	int			types;			/* 0: any */
	bool		has_enum;
	bool		is_const;
	int			nenum;
	JsonbValue *enums;

	Numeric		minimum;
	Numeric		maximum;
	Numeric		above;			/* exclusiveMinimum */
	Numeric		below;			/* exclusiveMaximum */
	Numeric		multiple_of;

	int64		min_length;
	int64		max_length;		/* -1: none; so the next */
	EsPattern  *pattern;

	EsSchemaNode *items;		/* of all items, or after those of tuple */
	EsSchemaList tuple;
	bool		has_tuple;
	EsSchemaNode *contains;
	int64		min_items;
	int64		max_items;
	bool		unique_items;

	int64		min_properties;
	int64		max_properties;
	int			nrequired;
	EsSchemaKey *required;		/* in jsonb's order of keys */
	int			nproperties;
	EsSchemaMember *properties; /* in the same order */
	int			npatterns;
	EsSchemaMember *patterns;
	EsSchemaNode *additional_properties;
	int			ndependencies;
	EsSchemaMember *dependencies;
	EsSchemaNode *property_names;

	EsSchemaList all_of;
	EsSchemaList any_of;
	EsSchemaList one_of;
	EsSchemaNode *not;
	EsSchemaNode *condition;	/* if */
	EsSchemaNode *consequence;	/* then */
	EsSchemaNode *alternative;	/* else */
};

typedef struct EsSchema
{
	Jsonb	   *source;
	int			draft;			/* 4, 6 or 7 */
	EsSchemaNode *root;
} EsSchema;

/* where and why a value does not fit */
typedef struct EsSchemaFailure
{
	char	   *pointer;		/* RFC 6901, of the value */
	const char *keyword;
	char	   *reason;			/* a sentence without its full stop */
} EsSchemaFailure;

/* the part of a value or schema that is being looked at */
typedef struct EsJsonPath
{
	const struct EsJsonPath *parent;
	const char *key;			/* NULL: an array's element */
	int			length;
	int64		index;
} EsJsonPath;

/*
 * es_schema_compile makes a schema ready for checks, in the current memory
 * context; raises ERRCODE_ES_INVALID_EVENT_TYPE if it is none.
 */
extern EsSchema *es_schema_compile(Jsonb *source);

/*
 * es_schema_missing returns the URI of a document that a schema refers to and
 * does not hold; NULL if there is none.
 */
extern char *es_schema_missing(Jsonb *source);

/* es_schema_check tells whether a value fits; if not, failure says why. */
extern bool es_schema_check(EsSchema *schema, Jsonb *value, EsSchemaFailure *failure);

/* check.c, for compatible.c */
extern bool es_schema_node_accepts(const EsSchemaNode *node, const JsonbValue *value);

/*
 * es_schema_breaks says what keeps a schema from accepting all that another
 * accepts, one line each with a JSON pointer; NULL if nothing does.  It can
 * name differences that do no harm, but overlooks none.  A schema that is NULL
 * accepts everything.
 */
extern char *es_schema_breaks(EsSchema *narrow, EsSchema *wide);

/* whether two values are the same; and an order of all values */
extern bool es_json_equal(const JsonbValue *a, const JsonbValue *b);
extern int	es_json_compare(const JsonbValue *a, const JsonbValue *b);

/* a Jsonb's root, a scalar as itself */
extern void es_json_root(Jsonb *jsonb, JsonbValue *value);

/* an object's member, NULL if it has none of the name */
extern JsonbValue *es_json_member(const JsonbValue *object, const char *key);
extern bool es_json_is_object(const JsonbValue *value);
extern bool es_json_is_array(const JsonbValue *value);
extern char *es_json_path(const EsJsonPath *path);

/* compile.c, for reference.c */
typedef struct EsSchemaCompiler
{
	EsSchema   *schema;
	HTAB	   *nodes;			/* by the place of their source */
	HTAB	   *documents;		/* by URI */
	List	   *pending;		/* nodes whose ref is to be found */
} EsSchemaCompiler;

/* reference.c */
extern char *es_schema_resolve_uri(const char *base, const char *uri, int length);
extern void es_schema_add_document(EsSchemaCompiler *compiler, const char *uri, const JsonbValue *value);
extern bool es_schema_find(EsSchemaCompiler *compiler, const char *uri, JsonbValue *value);
extern void es_schema_check_loops(EsSchemaNode *root, List *nodes);

/* pattern.c */
extern EsPattern *es_pattern_make(const char *source, int length, const EsJsonPath *path);
extern bool es_pattern_matches(EsPattern *pattern, const char *value, int length);

/* automaton.c, for pattern.c */
extern EsAutomaton *es_automaton_make(const char *pattern, int length);
extern bool es_automaton_matches(const EsAutomaton *automaton, const char *value, int length);

/* metaschema.c */
extern int	es_metaschema_check(Jsonb *source);
extern Jsonb *es_metaschema_source(const char *uri);

/* compile.c, for metaschema.c */
extern EsSchema *es_schema_compile_checked(Jsonb *source, int draft);

#endif							/* EVENTSRC_JSON_SCHEMA_H */

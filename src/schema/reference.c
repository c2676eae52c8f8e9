/*
 * reference.c
 *		$id and $ref: URIs, JSON pointers, and references that run in a circle.
 *
 * Nothing is ever fetched: a reference leads to a place in the same document,
 * to a subschema that has an id there, or to one of the drafts' metaschemas.
 */
#include "eventsrc.h"

#include <ctype.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "schema/json_schema.h"

/* longer ones are cut; none is that long */
#define URI_SIZE	256

typedef struct Document
{
	char		uri[URI_SIZE];	/* hash key */
	JsonbValue	value;
} Document;

/*
 * scheme_length returns the length of a URI's scheme with its colon, 0 if it
 * has none.
 */
static int
scheme_length(const char *uri, int length)
{
	for (int i = 0; i < length; i++)
	{
		if (uri[i] == ':')
			return i > 0 ? i + 1 : 0;
		if (!isalnum((unsigned char) uri[i]) && strchr("+-.", uri[i]) == NULL)
			return 0;
	}
	return 0;
}

/*
 * es_schema_resolve_uri makes a URI absolute by a base that has no fragment.
 */
char *
es_schema_resolve_uri(const char *base, const char *uri, int length)
{
	int			scheme = scheme_length(base, strlen(base));
	const char *authority = base + scheme;
	const char *path;
	const char *slash;

	if (scheme_length(uri, length) > 0)
		return pnstrdup(uri, length);
	if (length == 0 || uri[0] == '#')
		return psprintf("%s%.*s", base, length, uri);
	if (length > 1 && uri[0] == '/' && uri[1] == '/')
		return psprintf("%.*s%.*s", scheme, base, length, uri);

	path = strncmp(authority, "//", 2) == 0 ? strchr(authority + 2, '/') : authority;
	if (path == NULL)
		path = base + strlen(base);
	if (uri[0] == '/')
		return psprintf("%.*s%.*s", (int) (path - base), base, length, uri);
	slash = strrchr(path, '/');
	if (slash == NULL)
		return psprintf("%.*s%s%.*s", (int) (path - base), base,
						path > base && path[-1] != ':' ? "/" : "", length, uri);
	return psprintf("%.*s%.*s", (int) (slash - base + 1), base, length, uri);
}

/*
 * es_schema_add_document registers a value under a URI; the first stays.
 */
void
es_schema_add_document(EsSchemaCompiler *compiler, const char *uri, const JsonbValue *value)
{
	char		key[URI_SIZE];
	int			length = strlen(uri);
	Document   *document;
	bool		found;

	/* an empty fragment means the whole */
	if (length > 0 && uri[length - 1] == '#')
		length--;
	memset(key, 0, sizeof(key));
	memcpy(key, uri, Min(length, URI_SIZE - 1));
	document = hash_search(compiler->documents, key, HASH_ENTER, &found);
	if (!found)
		document->value = *value;
}

/*
 * find_document finds what is registered under a URI.
 */
static bool
find_document(EsSchemaCompiler *compiler, const char *uri, int length, JsonbValue *value)
{
	char		key[URI_SIZE];
	Document   *document;

	memset(key, 0, sizeof(key));
	memcpy(key, uri, Min(length, URI_SIZE - 1));
	document = hash_search(compiler->documents, key, HASH_FIND, NULL);
	if (document == NULL)
	{
		/* a metaschema comes in when it is first referred to */
		Jsonb	   *metaschema = es_metaschema_source(key);

		if (metaschema == NULL)
			return false;
		es_json_root(metaschema, value);
		es_schema_add_document(compiler, key, value);
		return true;
	}
	*value = document->value;
	return true;
}

/*
 * next_token takes the next part of a JSON pointer, unescaped, off its front.
 */
static char *
next_token(const char **pointer)
{
	const char *from = *pointer + 1;
	char	   *token = palloc(strlen(from) + 1);
	char	   *to = token;

	while (*from && *from != '/')
	{
		if (from[0] == '~' && (from[1] == '0' || from[1] == '1'))
		{
			*to++ = from[1] == '0' ? '~' : '/';
			from += 2;
		}
		else
			*to++ = *from++;
	}
	*to = '\0';
	*pointer = from;
	return token;
}

/*
 * follow_pointer goes from a value to the place that a JSON pointer names.
 */
static bool
follow_pointer(JsonbValue *value, const char *pointer)
{
	while (*pointer)
	{
		JsonbValue *next = NULL;
		char	   *token;

		if (*pointer != '/')
			return false;
		token = next_token(&pointer);
		if (es_json_is_object(value))
			next = es_json_member(value, token);
		else if (es_json_is_array(value) && token[0] != '\0' && strlen(token) < 9 &&
				 strspn(token, "0123456789") == strlen(token))
			next = getIthJsonbValueFromContainer(value->val.binary.data, atoi(token));
		if (next == NULL)
			return false;
		*value = *next;
	}
	return true;
}

/*
 * decode undoes the percent-encoding of a URI's fragment.
 */
static char *
decode(const char *fragment)
{
	char	   *result = palloc(strlen(fragment) + 1);
	char	   *to = result;

	while (*fragment)
	{
		if (fragment[0] == '%' && isxdigit((unsigned char) fragment[1]) &&
			isxdigit((unsigned char) fragment[2]))
		{
			char		digits[3] = {fragment[1], fragment[2], '\0'};

			*to++ = (char) strtol(digits, NULL, 16);
			fragment += 3;
		}
		else
			*to++ = *fragment++;
	}
	*to = '\0';
	return result;
}

/*
 * es_schema_find finds what an absolute URI refers to.
 */
bool
es_schema_find(EsSchemaCompiler *compiler, const char *uri, JsonbValue *value)
{
	const char *hash = strchr(uri, '#');

	/* ids with a fragment, such as "#item", are registered as a whole */
	if (find_document(compiler, uri, strlen(uri), value))
		return true;
	if (hash == NULL)
		return false;
	if (!find_document(compiler, uri, hash - uri, value))
		return false;
	return follow_pointer(value, decode(hash + 1));
}

static void walk(EsSchemaNode *node);

/*
 * walk_list walks the nodes of a list.
 */
static void
walk_list(const EsSchemaList *list)
{
	for (int i = 0; i < list->count; i++)
		walk(list->nodes[i]);
}

/*
 * walk goes to all nodes that look at the same value as this one; raises an
 * error if it meets a node that it is at.
 */
static void
walk(EsSchemaNode *node)
{
	check_stack_depth();
	if (node == NULL || node->mark == 2)
		return;
	if (node->mark == 1)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_EVENT_TYPE),
				 errmsg("the JSON Schema refers to itself in a circle"),
				 errdetail("A check against it would never end: the reference leads back without going down to a property or item."),
				 errhint("Let a $ref that leads back stand under properties, items or the like.")));
	node->mark = 1;
	if (node->has_ref)
		walk(node->ref);
	else
	{
		walk_list(&node->all_of);
		walk_list(&node->any_of);
		walk_list(&node->one_of);
		walk(node->not);
		walk(node->condition);
		walk(node->consequence);
		walk(node->alternative);
		for (int i = 0; i < node->ndependencies; i++)
			walk(node->dependencies[i].node);
	}
	node->mark = 2;
}

/*
 * es_schema_check_loops refuses schemas whose references run in a circle.
 */
void
es_schema_check_loops(EsSchemaNode *root, List *nodes)
{
	ListCell   *cell;

	walk(root);
	foreach(cell, nodes)
		walk(lfirst(cell));
}

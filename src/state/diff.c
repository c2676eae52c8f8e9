/*
 * diff.c
 *		What changed between two states: a JSON patch (RFC 6902).
 *
 * Objects are compared key by key.  Of arrays, what is equal at the begin and
 * at the end is left alone; the rest is compared element by element, then
 * removed or added.  The patch is right, and short where changes are few; it is
 * not always the shortest.
 */
#include "state/state.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "schema/json_schema.h"

typedef struct Diff
{
	JsonbParseState *parse;
	StringInfoData path;		/* JSON pointer of what is compared */
} Diff;

static void compare_values(Diff *diff, JsonbValue *from, JsonbValue *to);
static void compare_objects(Diff *diff, JsonbContainer *from, JsonbContainer *to);
static void compare_arrays(Diff *diff, JsonbContainer *from, JsonbContainer *to);
static bool same_value(JsonbValue *a, JsonbValue *b);
static bool is_container(JsonbValue *value, uint32 kind);
static int	order_of_keys(JsonbValue *a, JsonbValue *b);
static int	fetch_elements(JsonbContainer *array, JsonbValue **elements);
static void append_key(Diff *diff, JsonbValue *key);
static void add_operation(Diff *diff, const char *op, JsonbValue *value);
static void push_text(Diff *diff, JsonbIteratorToken token, const char *text, int length);

/*
 * es_json_diff returns the patch that makes one state the other, an array of
 * operations, in the current memory context.
 */
Jsonb *
es_json_diff(Jsonb *from, Jsonb *to)
{
	Diff		diff = {0};
	JsonbValue	left;
	JsonbValue	right;

	initStringInfo(&diff.path);
	pushJsonbValue(&diff.parse, WJB_BEGIN_ARRAY, NULL);
	es_json_root(from, &left);
	es_json_root(to, &right);
	compare_values(&diff, &left, &right);
	return JsonbValueToJsonb(pushJsonbValue(&diff.parse, WJB_END_ARRAY, NULL));
}

/*
 * compare_values adds what changed between two values at the present path.
 */
static void
compare_values(Diff *diff, JsonbValue *from, JsonbValue *to)
{
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (is_container(from, JB_FOBJECT) && is_container(to, JB_FOBJECT))
		compare_objects(diff, from->val.binary.data, to->val.binary.data);
	else if (is_container(from, JB_FARRAY) && is_container(to, JB_FARRAY))
		compare_arrays(diff, from->val.binary.data, to->val.binary.data);
	else if (!same_value(from, to))
		add_operation(diff, "replace", to);
}

/*
 * compare_objects walks over two objects' keys, which are sorted.
 */
static void
compare_objects(Diff *diff, JsonbContainer *from, JsonbContainer *to)
{
	JsonbIterator *left = JsonbIteratorInit(from);
	JsonbIterator *right = JsonbIteratorInit(to);
	JsonbValue	left_key;
	JsonbValue	right_key;
	JsonbValue	left_value;
	JsonbValue	right_value;
	JsonbIteratorToken left_token;
	JsonbIteratorToken right_token;
	int			length = diff->path.len;

	(void) JsonbIteratorNext(&left, &left_key, true);
	(void) JsonbIteratorNext(&right, &right_key, true);
	left_token = JsonbIteratorNext(&left, &left_key, true);
	right_token = JsonbIteratorNext(&right, &right_key, true);
	while (left_token == WJB_KEY || right_token == WJB_KEY)
	{
		int			order = left_token != WJB_KEY ? 1 :
			right_token != WJB_KEY ? -1 : order_of_keys(&left_key, &right_key);

		append_key(diff, order <= 0 ? &left_key : &right_key);
		if (order <= 0)
			(void) JsonbIteratorNext(&left, &left_value, true);
		if (order >= 0)
			(void) JsonbIteratorNext(&right, &right_value, true);

		if (order < 0)
			add_operation(diff, "remove", NULL);
		else if (order > 0)
			add_operation(diff, "add", &right_value);
		else
			compare_values(diff, &left_value, &right_value);

		diff->path.len = length;
		diff->path.data[length] = '\0';
		if (order <= 0)
			left_token = JsonbIteratorNext(&left, &left_key, true);
		if (order >= 0)
			right_token = JsonbIteratorNext(&right, &right_key, true);
	}
}

/*
 * compare_arrays compares what lies between the equal elements at the begin and
 * at the end of two arrays.
 */
static void
compare_arrays(Diff *diff, JsonbContainer *from, JsonbContainer *to)
{
	JsonbValue *left;
	JsonbValue *right;
	int			nleft = fetch_elements(from, &left);
	int			nright = fetch_elements(to, &right);
	int			length = diff->path.len;
	int			first = 0;
	int			common;

	while (first < nleft && first < nright && same_value(&left[first], &right[first]))
		first++;
	while (nleft > first && nright > first &&
		   same_value(&left[nleft - 1], &right[nright - 1]))
	{
		nleft--;
		nright--;
	}

	common = Min(nleft, nright);
	for (int i = first; i < Max(nleft, nright); i++)
	{
		/* each removal moves the next element up; removals come last */
		appendStringInfo(&diff->path, "/%d", i < common || nright > nleft ? i : common);
		if (i < common)
			compare_values(diff, &left[i], &right[i]);
		else if (nright > nleft)
			add_operation(diff, "add", &right[i]);
		else
			add_operation(diff, "remove", NULL);
		diff->path.len = length;
		diff->path.data[length] = '\0';
	}
	pfree(left);
	pfree(right);
}

/*
 * same_value tells whether two values are equal, as jsonb's operator = does.
 */
static bool
same_value(JsonbValue *a, JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvNull:
			return true;
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq,
													NumericGetDatum(a->val.numeric),
													NumericGetDatum(b->val.numeric)));
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		default:
			if (a->val.binary.len == b->val.binary.len &&
				memcmp(a->val.binary.data, b->val.binary.data, a->val.binary.len) == 0)
				return true;
			return compareJsonbContainers(a->val.binary.data, b->val.binary.data) == 0;
	}
}

/*
 * is_container tells whether a value is an object or array, as asked.
 */
static bool
is_container(JsonbValue *value, uint32 kind)
{
	return value->type == jbvBinary && (value->val.binary.data->header & kind) != 0;
}

/*
 * order_of_keys compares as jsonb sorts an object's keys: by length, then by
 * bytes.
 */
static int
order_of_keys(JsonbValue *a, JsonbValue *b)
{
	if (a->val.string.len != b->val.string.len)
		return a->val.string.len > b->val.string.len ? 1 : -1;
	return memcmp(a->val.string.val, b->val.string.val, a->val.string.len);
}

/*
 * fetch_elements makes an array of an array's elements and returns their number.
 */
static int
fetch_elements(JsonbContainer *array, JsonbValue **elements)
{
	int			count = JsonContainerSize(array);
	JsonbIterator *iterator = JsonbIteratorInit(array);
	JsonbValue	value;

	*elements = MemoryContextAllocHuge(CurrentMemoryContext,
									   sizeof(JsonbValue) * (Size) Max(count, 1));
	(void) JsonbIteratorNext(&iterator, &value, true);
	for (int i = 0; i < count; i++)
		(void) JsonbIteratorNext(&iterator, &(*elements)[i], true);
	return count;
}

/*
 * append_key appends a key to the path, with "~" and "/" escaped.
 */
static void
append_key(Diff *diff, JsonbValue *key)
{
	appendStringInfoChar(&diff->path, '/');
	for (int i = 0; i < key->val.string.len; i++)
	{
		char		c = key->val.string.val[i];

		if (c == '~')
			appendStringInfoString(&diff->path, "~0");
		else if (c == '/')
			appendStringInfoString(&diff->path, "~1");
		else
			appendStringInfoChar(&diff->path, c);
	}
}

/*
 * add_operation adds an operation at the present path to the patch.
 */
static void
add_operation(Diff *diff, const char *op, JsonbValue *value)
{
	char	   *path = pnstrdup(diff->path.data, diff->path.len);

	pushJsonbValue(&diff->parse, WJB_BEGIN_OBJECT, NULL);
	push_text(diff, WJB_KEY, "op", 2);
	push_text(diff, WJB_VALUE, op, strlen(op));
	push_text(diff, WJB_KEY, "path", 4);
	push_text(diff, WJB_VALUE, path, diff->path.len);
	if (value)
	{
		push_text(diff, WJB_KEY, "value", 5);
		pushJsonbValue(&diff->parse, WJB_VALUE, value);
	}
	pushJsonbValue(&diff->parse, WJB_END_OBJECT, NULL);
}

/*
 * push_text adds a key or a text to the patch.
 */
static void
push_text(Diff *diff, JsonbIteratorToken token, const char *text, int length)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = length;
	pushJsonbValue(&diff->parse, token, &value);
}

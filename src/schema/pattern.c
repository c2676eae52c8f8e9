/*
 * pattern.c
 *		Regular expressions of ECMA 262, as JSON Schema has them, for
 *		PostgreSQL's engine, which can be cancelled and does not overrun the
 *		stack.  Simple ones have an automaton of our own, see automaton.c.
 */
#include "eventsrc.h"

#include "catalog/pg_collation.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "schema/json_schema.h"

/*
 * translate_pattern writes a pattern as PostgreSQL reads it.  Most is the same; what
 * differs is the meaning of some escapes, of "." and of "[" in brackets.
 */
static void
translate_pattern(StringInfo to, const char *from, int length)
{
	bool		bracket = false;

	appendStringInfoString(to, "(?:");	/* so that no director or option
										 * begins it */
	for (int i = 0; i < length; i++)
	{
		char		c = from[i];

		if (c == '\\' && i + 1 < length)
		{
			char		next = from[++i];

			if (next == 'b')
				appendStringInfoString(to, bracket ? "\\u0008" : "\\y");
			else if (next == 'B' && !bracket)
				appendStringInfoString(to, "\\Y");
			else if (next == 'x' && i + 2 < length)
			{
				appendStringInfo(to, "\\u00%c%c", from[i + 1], from[i + 2]);
				i += 2;
			}
			else if (strchr("aAemMyYZ", next) != NULL)
				appendStringInfoChar(to, next); /* mean themselves */
			else if (next == '0')
				appendStringInfoString(to, "\\u0000");
			else if (next == 'd')
				appendStringInfoString(to, bracket ? "0-9" : "[0-9]");
			else if (next == 'D' && !bracket)
				appendStringInfoString(to, "[^0-9]");
			else if (next == 'w')
				appendStringInfoString(to, bracket ? "A-Za-z0-9_" : "[A-Za-z0-9_]");
			else if (next == 'W' && !bracket)
				appendStringInfoString(to, "[^A-Za-z0-9_]");
			else if ((next == 's' || next == 'S') && !bracket)
				appendStringInfo(to, "[%s\\t\\n\\v\\f\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]",
								 next == 'S' ? "^" : "");
			else
			{
				appendStringInfoChar(to, '\\');
				appendStringInfoChar(to, next);
			}
		}
		else if (bracket)
		{
			if (c == ']')
				bracket = false;
			if (c == '[')
				appendStringInfoChar(to, '\\');
			appendStringInfoChar(to, c);
		}
		else if (c == '.')
			appendStringInfoString(to, "[^\\n\\r]");
		else if (c == '[')
		{
			bracket = true;
			appendStringInfoChar(to, c);
			if (i + 1 < length && from[i + 1] == '^')
				appendStringInfoChar(to, from[++i]);
		}
		else
			appendStringInfoChar(to, c);
	}
	appendStringInfoChar(to, ')');
}

/*
 * free_regex frees what the server's engine made of a pattern, which not all
 * versions keep in a memory context; a callback of the pattern's context, too.
 */
static void
free_regex(void *arg)
{
	EsPattern  *pattern = arg;

	if (pattern->has_regex)
		pg_regfree(&pattern->regex);
	pattern->has_regex = false;
}

/*
 * refuse_pattern raises the error of a pattern that the engine does not take.
 */
static void
refuse_pattern(int status, const regex_t *regex, const EsJsonPath *path)
{
	char		reason[100];

	CHECK_FOR_INTERRUPTS();
	pg_regerror(status, regex, reason, sizeof(reason));
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_EVENT_TYPE),
			 errmsg("the JSON Schema has an invalid regular expression"),
			 errdetail("At \"%s\": %s.", es_json_path(path), reason),
			 errhint("Patterns are those of JavaScript; not all of its newer notations are known here.")));
}

/*
 * es_pattern_make makes a pattern ready for es_pattern_matches(), in the
 * current memory context; raises an error if it is none.
 */
EsPattern *
es_pattern_make(const char *source, int length, const EsJsonPath *path)
{
	EsPattern  *pattern = palloc0(sizeof(EsPattern));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	StringInfoData translated;
	pg_wchar   *wide;
	int			status;

	initStringInfo(&translated);
	translate_pattern(&translated, source, length);
	wide = palloc((translated.len + 1) * sizeof(pg_wchar));
	status = pg_regcomp(&pattern->regex, wide,
						pg_mb2wchar_with_len(translated.data, wide, translated.len),
						REG_ADVANCED | REG_NOSUB, C_COLLATION_OID);
	if (status != REG_OKAY)
		refuse_pattern(status, &pattern->regex, path);
	pattern->has_regex = true;
	callback->func = free_regex;
	callback->arg = pattern;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	pfree(wide);
	pfree(translated.data);

	pattern->automaton = es_automaton_make(source, length);
	if (pattern->automaton)
		free_regex(pattern);
	return pattern;
}

/*
 * run_engine tells by the server's engine whether a pattern is found in a
 * string.
 */
static bool
run_engine(EsPattern *pattern, const char *value, int length)
{
	pg_wchar   *wide = palloc_extended((Size) (length + 1) * sizeof(pg_wchar), MCXT_ALLOC_HUGE);
	int			status;

	status = pg_regexec(&pattern->regex, wide, pg_mb2wchar_with_len(value, wide, length), 0,
						NULL, 0, NULL, 0);
	if (status != REG_OKAY && status != REG_NOMATCH)
	{
		char		reason[100];

		CHECK_FOR_INTERRUPTS();
		pg_regerror(status, &pattern->regex, reason, sizeof(reason));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_REGULAR_EXPRESSION),
				 errmsg("regular expression failed: %s", reason)));
	}
	pfree(wide);
	return status == REG_OKAY;
}

/*
 * es_pattern_matches tells whether a pattern is found in a string.
 */
bool
es_pattern_matches(EsPattern *pattern, const char *value, int length)
{
	if (pattern->automaton)
		return es_automaton_matches(pattern->automaton, value, length);
	return run_engine(pattern, value, length);
}

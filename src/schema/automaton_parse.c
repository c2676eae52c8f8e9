/*
 * automaton_parse.c
 *		Reads patterns of the common notations for automaton.c: characters,
 *		brackets, groups, alternatives, repetitions, "^" at the begin and "$" at
 *		the end.
 *
 * That a pattern is well-formed is known; what is not known here gives up.
 * Every character of the pattern is a position, and repetitions are written
 * out: what is repeated is read again.
 */
#include "eventsrc.h"

#include <ctype.h>

#include "miscadmin.h"

#include "schema/automaton.h"

#define MAX_STEPS	2000		/* parts of a pattern, with what is repeated */

static bool parse_alternatives(EsPatternParser *parser, EsPatternPart *part);

/*
 * invert replaces a set of symbols by all others.
 */
static void
invert(EsSet *symbols)
{
	EsSet		all = {{0}};

	es_set_add_range(&all, 0, ES_OTHER);
	for (int i = 0; i < lengthof(all.words); i++)
		symbols->words[i] = all.words[i] & ~symbols->words[i];
}

/*
 * follow_with lets what the set of positions "to" holds come after "from".
 */
static void
follow_with(EsPatternParser *parser, const EsSet *from, const EsSet *to)
{
	for (int i = 0; i < parser->npositions; i++)
	{
		if (es_set_has(from, i))
			es_set_join(&parser->follow[i], to);
	}
}

/*
 * append puts a part after another.
 */
static void
append(EsPatternParser *parser, EsPatternPart *to, const EsPatternPart *part)
{
	follow_with(parser, &to->last, &part->first);
	if (to->nullable)
		es_set_join(&to->first, &part->first);
	if (!part->nullable)
		memset(&to->last, 0, sizeof(EsSet));
	es_set_join(&to->last, &part->last);
	to->nullable = to->nullable && part->nullable;
}

/*
 * give_up notes that a pattern holds something that is not known here.
 */
static bool
give_up(EsPatternParser *parser)
{
	parser->unknown = true;
	return false;
}

/*
 * peek returns the next character, -1 at the end.
 */
static int
peek(const EsPatternParser *parser)
{
	return parser->at < parser->end ? (unsigned char) *parser->at : -1;
}

/*
 * parse_escape reads what follows a backslash into a set of symbols; tells
 * whether it is a single character, which is returned then, else -1.
 */
static int
parse_escape(EsPatternParser *parser, EsSet *symbols, bool bracket)
{
	static const char names[] = "tnvfr";
	static const char controls[] = "\t\n\v\f\r";
	int			c = peek(parser);
	const char *name = c > 0 ? strchr(names, c) : NULL;

	if (c < 0 || c >= 0x80)
	{
		give_up(parser);
		return -1;
	}
	parser->at++;
	if (name)
		c = controls[name - names];
	else if (c == 'd' || (c == 'D' && !bracket))
	{
		es_set_add_range(symbols, '0', '9');
		if (c == 'D')
			invert(symbols);
		return -1;
	}
	else if (c == 'w' || (c == 'W' && !bracket))
	{
		es_set_add_range(symbols, '0', '9');
		es_set_add_range(symbols, 'A', 'Z');
		es_set_add_range(symbols, 'a', 'z');
		es_set_add(symbols, '_');
		if (c == 'W')
			invert(symbols);
		return -1;
	}
	else if (isalnum(c))
		give_up(parser);
	es_set_add(symbols, c);
	return c;
}

/*
 * parse_member reads a character, or an escape, in brackets; returns the
 * character, -1 if it is a class of them.
 */
static int
parse_member(EsPatternParser *parser, EsSet *symbols)
{
	int			c = peek(parser);

	if (c < 0 || c >= 0x80)
	{
		give_up(parser);
		return -1;
	}
	parser->at++;
	if (c == '\\')
		return parse_escape(parser, symbols, true);
	es_set_add(symbols, c);
	return c;
}

/*
 * parse_bracket reads what follows "[" into a set of symbols.
 */
static bool
parse_bracket(EsPatternParser *parser, EsSet *symbols)
{
	bool		inverted = (peek(parser) == '^');
	const char *begin;

	if (inverted)
		parser->at++;
	begin = parser->at;
	if (peek(parser) == ']')
		return give_up(parser);
	while (peek(parser) != ']')
	{
		bool		minus = (peek(parser) == '-');
		const char *here = parser->at;
		int			from = parse_member(parser, symbols);
		int			to;

		if (parser->unknown)
			return false;
		/* a "-" is itself at the begin and the end */
		if (minus && here != begin && peek(parser) != ']')
			return give_up(parser);
		if (peek(parser) != '-' || (parser->at + 1 < parser->end && parser->at[1] == ']'))
			continue;
		parser->at++;
		if (minus || peek(parser) == '-')
			return give_up(parser);
		to = parse_member(parser, symbols);
		if (from < 0 || to < from)
			return give_up(parser);
		es_set_add_range(symbols, from, to);
	}
	parser->at++;
	if (inverted)
		invert(symbols);
	return true;
}

/*
 * parse_atom reads a character, a bracket or a group.
 */
static bool
parse_atom(EsPatternParser *parser, EsPatternPart *part)
{
	EsSet		symbols = {{0}};
	int			c = peek(parser);

	memset(part, 0, sizeof(EsPatternPart));
	if (++parser->steps > MAX_STEPS || parser->npositions == ES_MAX_POSITIONS)
		return give_up(parser);
	parser->at++;
	if (c == '(')
	{
		if (peek(parser) == '?')
		{
			if (parser->end - parser->at < 2 || parser->at[1] != ':')
				return give_up(parser);
			parser->at += 2;
		}
		(void) parse_alternatives(parser, part);
		if (parser->unknown || peek(parser) != ')')
			return give_up(parser);
		parser->at++;
		return true;
	}
	if (c == '.')
	{
		es_set_add(&symbols, '\n');
		es_set_add(&symbols, '\r');
		invert(&symbols);
	}
	else if (c == '[')
		(void) parse_bracket(parser, &symbols);
	else if (c == '\\')
		(void) parse_escape(parser, &symbols, false);
	else if (c >= 0x80 || strchr("^$*+?{}])", c) != NULL)
		return give_up(parser);
	else
		es_set_add(&symbols, c);
	parser->symbols[parser->npositions] = symbols;
	es_set_add(&part->first, parser->npositions);
	es_set_add(&part->last, parser->npositions);
	parser->npositions++;
	return !parser->unknown;
}

/*
 * parse_count reads a number of repetitions; -1 if there is none.
 */
static int
parse_count(EsPatternParser *parser)
{
	int			count = -1;

	while (peek(parser) >= '0' && peek(parser) <= '9' && count < 1000)
		count = Max(count, 0) * 10 + (*parser->at++ - '0');
	return count;
}

/*
 * parse_quantifier reads how often an atom may come; most -1 is no limit.
 */
static bool
parse_quantifier(EsPatternParser *parser, int *least, int *most)
{
	int			c = peek(parser);

	*least = *most = 1;
	if (c != '*' && c != '+' && c != '?' && c != '{')
		return true;
	parser->at++;
	if (c == '{')
	{
		*least = *most = parse_count(parser);
		if (peek(parser) == ',')
		{
			parser->at++;
			*most = parse_count(parser);
		}
		if (*least < 0 || peek(parser) != '}')
			return give_up(parser);
		parser->at++;
	}
	else
	{
		*least = (c == '+') ? 1 : 0;
		*most = (c == '?') ? 1 : -1;
	}
	/* whether few or many are preferred changes no answer */
	if (peek(parser) == '?')
		parser->at++;
	c = peek(parser);
	if (c == '*' || c == '+' || c == '?' || c == '{')
		return give_up(parser);
	return true;
}

/*
 * parse_repeated reads an atom with its quantifier, and once more for every
 * repetition.
 */
static bool
parse_repeated(EsPatternParser *parser, EsPatternPart *part)
{
	const char *begin = parser->at;
	const char *after;
	EsPatternPart once;
	int			least;
	int			most;
	int			copies;

	memset(part, 0, sizeof(EsPatternPart));
	part->nullable = true;
	if (!parse_atom(parser, &once) || !parse_quantifier(parser, &least, &most))
		return false;
	after = parser->at;
	copies = (most < 0) ? Max(least, 1) : most;
	for (int i = 0; i < copies; i++)
	{
		if (i > 0)
		{
			parser->at = begin;
			if (!parse_atom(parser, &once))
				return false;
		}
		if (most < 0 && i == copies - 1)
			follow_with(parser, &once.last, &once.first);
		if (i >= least)
			once.nullable = true;
		append(parser, part, &once);
	}
	parser->at = after;
	return true;
}

/*
 * parse_alternatives reads sequences with "|" between them, up to the end or a
 * closing parenthesis; tells whether there is only one.
 */
static bool
parse_alternatives(EsPatternParser *parser, EsPatternPart *part)
{
	bool		single = true;

	memset(part, 0, sizeof(EsPatternPart));
	if (stack_is_too_deep())
		return give_up(parser);
	for (;;)
	{
		EsPatternPart sequence = {.nullable = true};
		EsPatternPart next;

		while (!parser->unknown && peek(parser) >= 0 && peek(parser) != '|' && peek(parser) != ')')
		{
			if (parse_repeated(parser, &next))
				append(parser, &sequence, &next);
		}
		es_set_join(&part->first, &sequence.first);
		es_set_join(&part->last, &sequence.last);
		part->nullable = part->nullable || sequence.nullable;
		if (parser->unknown || peek(parser) != '|')
			return single;
		single = false;
		parser->at++;
	}
}

/*
 * es_pattern_parse reads a pattern into a parser that is zeroed; false if it is
 * left to the server's engine.
 */
bool
es_pattern_parse(EsPatternParser *parser, const char *pattern, int length, EsPatternPart *whole)
{
	int			backslashes = 0;
	bool		single;

	parser->at = pattern;
	parser->end = pattern + length;
	parser->from_begin = (peek(parser) == '^');
	if (parser->from_begin)
		parser->at++;
	parser->to_end = parser->end > parser->at && parser->end[-1] == '$';
	if (parser->to_end)
	{
		parser->end--;
		while (parser->end - backslashes > parser->at && parser->end[-1 - backslashes] == '\\')
			backslashes++;
		if (backslashes % 2 == 1)
			return false;
	}
	single = parse_alternatives(parser, whole);
	if (parser->unknown || parser->at < parser->end)
		return false;
	/* "^" and "$" would belong to the first and last alternative only */
	return single || !(parser->from_begin || parser->to_end);
}

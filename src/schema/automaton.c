/*
 * automaton.c
 *		Patterns as automata that are made once, with a table of their states.
 *
 * The server's engine makes its states anew for every string, which costs more
 * than all the rest of most checks.  So patterns of the common notations get an
 * automaton of Glushkov's kind here: a position for every character of the
 * pattern, repetitions written out, and a state for every set of positions that
 * can be reached.  Whatever is not known here, or would become too large, is
 * left to the server's engine.
 *
 * Symbols are the characters of ASCII, and one for all others: a pattern that
 * tells two of those apart is left to the engine, too.
 */
#include "eventsrc.h"

#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"

#include "schema/automaton.h"

#define START		255			/* the position before the first character */
#define MAX_STATES	255
#define DEAD		0			/* the state that leads nowhere */

struct EsAutomaton
{
	bool		to_end;			/* what is accepted must end with the string */
	int			nclasses;
	uint8		class_of[ES_NSYMBOLS];
	bool		accepts[MAX_STATES];
	uint8		next[FLEXIBLE_ARRAY_MEMBER];	/* by state and class */
};

/*
 * sort_symbols finds the classes of symbols that no position tells apart, and
 * the positions that take each.
 */
static int
sort_symbols(const EsPatternParser *parser, uint8 *class_of, EsSet *taken_by)
{
	int			nclasses = 0;

	for (int character = 0; character < ES_NSYMBOLS; character++)
	{
		EsSet		positions = {{0}};
		int			class = 0;

		for (int i = 0; i < parser->npositions; i++)
		{
			if (es_set_has(&parser->symbols[i], character))
				es_set_add(&positions, i);
		}
		while (class < nclasses && memcmp(&taken_by[class], &positions, sizeof(EsSet)) != 0)
			class++;
		if (class == nclasses)
			taken_by[nclasses++] = positions;
		class_of[character] = class;
	}
	return nclasses;
}

/*
 * step returns the positions that can be reached from others by a symbol of
 * those that "taken_by" take.
 */
static EsSet
step(const EsPatternParser *parser, const EsSet *from, const EsSet *taken_by)
{
	EsSet		result = {{0}};

	for (int w = 0; w < lengthof(from->words); w++)
	{
		for (uint64 rest = from->words[w]; rest; rest &= rest - 1)
			es_set_join(&result, &parser->follow[w * 64 + pg_rightmost_one_pos64(rest)]);
	}
	for (int w = 0; w < lengthof(result.words); w++)
		result.words[w] &= taken_by->words[w];
	/* a match can begin anywhere */
	if (!parser->from_begin)
		es_set_add(&result, START);
	return result;
}

/*
 * make_states fills an automaton's table; returns the number of states, 0 if
 * they are too many.
 */
static int
make_states(EsPatternParser *parser, const EsPatternPart *whole, const EsSet *taken_by,
			EsAutomaton *automaton)
{
	EsSet		states[MAX_STATES] = {{{0}}};
	int			nstates = 2;	/* DEAD is the empty set; then comes the start */
	EsSet		accepting = whole->last;

	parser->follow[START] = whole->first;
	if (whole->nullable)
		es_set_add(&accepting, START);
	es_set_add(&states[1], START);
	for (int state = 0; state < nstates; state++)
	{
		for (int w = 0; w < lengthof(accepting.words); w++)
		{
			if (states[state].words[w] & accepting.words[w])
				automaton->accepts[state] = true;
		}
		for (int class = 0; class < automaton->nclasses; class++)
		{
			int			to = DEAD;

			if (state != DEAD)
			{
				EsSet		reached = step(parser, &states[state], &taken_by[class]);

				while (to < nstates && memcmp(&states[to], &reached, sizeof(EsSet)) != 0)
					to++;
				if (to == MAX_STATES)
					return 0;
				if (to == nstates)
					states[nstates++] = reached;
			}
			automaton->next[state * automaton->nclasses + class] = to;
		}
	}
	return nstates;
}

/*
 * es_automaton_make makes the automaton of a pattern that the server's engine
 * takes for well-formed; NULL if it is to be left to that.
 */
EsAutomaton *
es_automaton_make(const char *pattern, int length)
{
	EsPatternParser *parser = palloc0(sizeof(EsPatternParser));
	EsAutomaton *automaton = NULL;
	EsPatternPart whole;

	if (es_pattern_parse(parser, pattern, length, &whole))
	{
		EsSet		taken_by[ES_NSYMBOLS];
		uint8		class_of[ES_NSYMBOLS];
		int			nclasses = sort_symbols(parser, class_of, taken_by);
		EsAutomaton *large = palloc0(offsetof(EsAutomaton, next) + MAX_STATES * nclasses);
		int			nstates;

		large->to_end = parser->to_end;
		large->nclasses = nclasses;
		memcpy(large->class_of, class_of, sizeof(class_of));
		nstates = make_states(parser, &whole, taken_by, large);
		if (nstates > 0)
		{
			automaton = palloc(offsetof(EsAutomaton, next) + nstates * nclasses);
			memcpy(automaton, large, offsetof(EsAutomaton, next) + nstates * nclasses);
		}
		pfree(large);
	}
	pfree(parser);
	return automaton;
}

/*
 * es_automaton_matches tells whether a pattern is found in a string.
 */
bool
es_automaton_matches(const EsAutomaton *automaton, const char *value, int length)
{
	const char *at = value;
	const char *end = value + length;
	int			encoding = GetDatabaseEncoding();
	int			state = 1;

	while (at < end)
	{
		unsigned char c = *at;
		int			character = c;

		if (!automaton->to_end && automaton->accepts[state])
			return true;
		if (c < 0x80)
			at++;
		else
		{
			character = ES_OTHER;
			at += pg_encoding_mblen(encoding, at);
		}
		state = automaton->next[state * automaton->nclasses + automaton->class_of[character]];
		if (state == DEAD)
			return false;
	}
	return automaton->accepts[state];
}

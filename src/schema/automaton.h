/*
 * automaton.h
 *		What the parser of patterns hands over to the maker of automata.
 */
#ifndef EVENTSRC_AUTOMATON_H
#define EVENTSRC_AUTOMATON_H

#include "schema/json_schema.h"

#define ES_OTHER		128		/* the symbol of characters beyond ASCII */
#define ES_NSYMBOLS		129
#define ES_MAX_POSITIONS	255

/* a set of positions, or of symbols */
typedef struct EsSet
{
	uint64		words[4];
} EsSet;

/* a part of a pattern */
typedef struct EsPatternPart
{
	bool		nullable;		/* fits the empty string */
	EsSet		first;			/* positions that it can begin with */
	EsSet		last;
} EsPatternPart;

typedef struct EsPatternParser
{
	const char *at;
	const char *end;
	bool		unknown;		/* there is something that is not known here */
	int			steps;
	int			npositions;
	EsSet		symbols[ES_MAX_POSITIONS + 1];	/* by position */
	EsSet		follow[ES_MAX_POSITIONS + 1];
	bool		from_begin;		/* "^" */
	bool		to_end;			/* "$" */
} EsPatternParser;

/*
 * es_set_add puts a member into a set.
 */
static inline void
es_set_add(EsSet *set, int member)
{
	set->words[member / 64] |= UINT64CONST(1) << (member % 64);
}

/*
 * es_set_add_range puts all members from one to another into a set.
 */
static inline void
es_set_add_range(EsSet *set, int from, int to)
{
	for (int i = from; i <= to; i++)
		es_set_add(set, i);
}

/*
 * es_set_has tells whether a set has a member.
 */
static inline bool
es_set_has(const EsSet *set, int member)
{
	return (set->words[member / 64] >> (member % 64)) & 1;
}

/*
 * es_set_join puts the members of a set into another.
 */
static inline void
es_set_join(EsSet *to, const EsSet *from)
{
	for (int i = 0; i < lengthof(to->words); i++)
		to->words[i] |= from->words[i];
}

/*
 * es_pattern_parse reads a pattern into a parser that is zeroed; false if it is
 * left to the server's engine.
 */
extern bool es_pattern_parse(EsPatternParser *parser, const char *pattern, int length,
							 EsPatternPart *whole);

#endif							/* EVENTSRC_AUTOMATON_H */

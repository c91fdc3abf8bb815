/* test_grammar.c - JSON Schema to automaton: what must be accepted, rejected, and refused by name;
 * patterns, number ranges, key order, references, splitting, limits and damage. */
#include "engine/grammar/grammar.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static grammar *compile(const char *schema, bool free_order)
{
    grammar *g = NULL;
    grammar_error why;
    const grammar_spec s = {
        .kind = GRAMMAR_SCHEMA, .text = schema, .n = strlen(schema), .free_order = free_order};
    int rc = grammar_compile(&s, &g, &why);
    ck_assert_msg(rc == 0, "%s: %s", schema, why.e.msg);
    return g;
}

typedef struct {
    const char *schema;
    const char *yes[10], *no[10]; /* NULL-terminated */
} verdicts;

static void judge(const verdicts *v, size_t n, bool free_order)
{
    for (size_t i = 0; i < n; i++) {
        grammar *g = compile(v[i].schema, free_order);
        for (const char *const *t = v[i].yes; *t; t++)
            ck_assert_msg(grammar_accepts(g, *t, strlen(*t)) == 1, "%s rejects %s", v[i].schema,
                          *t);
        for (const char *const *t = v[i].no; *t; t++)
            ck_assert_msg(grammar_accepts(g, *t, strlen(*t)) == 0, "%s accepts %s", v[i].schema,
                          *t);
        grammar_release(g);
    }
}
#define JUDGE(free_order, ...)                                  \
    do {                                                        \
        static const verdicts table[] = {__VA_ARGS__};          \
        judge(table, sizeof table / sizeof *table, free_order); \
    } while (0)

START_TEST(any_json)
{
    JUDGE(false,
          {"true",
           {"null", " [1,-0.5e+3, {\"a\":[]}]\n", "\"\\ud83d\\ude00\\u0000\xc3\xa9\"", "{}", "-0"},
           {"", "01", "[1,]", "{\"a\" 1}", "\"\xc3\"", "\"\\ud83d\"", "nul", "1 2"}});
}
END_TEST

START_TEST(scalars)
{
    JUDGE(false,
          {"{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":105}",
           {"-12", "0", "-0", "99", "104"},
           {"-13", "105", "1.0", "\"1\"", "007"}},
          {"{\"type\":\"integer\",\"minimum\":18446744073709551615}",
           {"18446744073709551615", "99999999999999999999"},
           {"18446744073709551614", "-1", "0"}},
          {"{\"type\":\"number\",\"exclusiveMinimum\":-0.25,\"maximum\":1.5}",
           {"-0.249", "0", "-0.0", "1.5", "1.500", "1.49"},
           {"-0.25", "-0.250", "1.501", "1e0", "2", "-1"}},
          {"{\"type\":\"number\",\"minimum\":2.5,\"maximum\":2.5}", {"2.5", "2.50"}, {"2", "2.51"}},
          {"{\"type\":\"number\",\"multipleOf\":0.05}",
           {"0", "1.25", "-3.10", "7"},
           {"0.01", "1.255"}},
          {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":50}", {"56", "700"}, {"49", "57"}},
          {"{\"type\":\"number\",\"exclusiveMinimum\":0}", {"0.5", "1"}, {"0", "-0", "0.0", "-1"}},
          {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
           {"\"ab\"", "\"\\u00e9\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80zz\""},
           {"\"a\"", "\"abcd\"", "\"\\u00e9\""}},
          {"{\"enum\":[\"a\\\"b\",1.50,null,{\"k\":[1]},\"\"]}",
           {"\"a\\\"b\"", "1.5", "1.50", "null", "{ \"k\": [1]}", "\"\""},
           {"\"a\"", "1", "{}", "true"}},
          {"{\"enum\":[{\"a\":1},{\"a\":9},[1],[],2],\"properties\":{\"a\":{\"maximum\":5}},"
           "\"minItems\":1}",
           {"{\"a\":1}", "[ 1]", "2"},
           {"{\"a\":9}", "[]", "{}", "1"}},
          {"{\"const\":\"x\",\"type\":[\"string\",\"null\"]}", {"\"x\""}, {"null", "\"y\""}},
          {"{\"enum\":[\"apple\",\"bee\",\"cat\"],\"pattern\":\"e\"}",
           {"\"apple\"", "\"bee\""},
           {"\"cat\"", "\"e\""}},
          {"{\"type\":\"string\",\"format\":\"date\"}",
           {"\"2024-02-29\"", "\"1999-12-31\""},
           {"\"2023-02-29\"", "\"1999-13-01\"", "\"99-1-1\""}},
          {"{\"type\":\"string\",\"format\":\"ipv6\"}",
           {"\"::1\"", "\"1:2:3:4:5:6:7:8\"", "\"::ffff:1.2.3.4\""},
           {"\"1:2\"", "\":::1\"", "\"12345::\""}},
          {"{\"type\":\"string\",\"format\":\"uri\"}",
           {"\"https://a.b/c?d#e\"", "\"urn:x:y\""},
           {"\"a b\"", "\"/c\"", "\"http://a b\""}},
          {"{\"type\":\"string\",\"format\":\"not-a-format\"}", {"\"x\""}, {"1"}});
}
END_TEST

/* J4: a number that no double holds is the number that the schema says. */
START_TEST(long_numbers)
{
    JUDGE(false,
          {"{\"const\":12345678901234567890.123456789}",
           {"12345678901234567890.123456789"},
           {"12345678901234567890.12345679", "12345678901234567168", "12345678901234567890"}},
          {"{\"type\":\"number\",\"maximum\":9007199254740993.5}",
           {"9007199254740993.5", "9007199254740993.4999", "-9007199254740994"},
           {"9007199254740993.51", "9007199254740994"}},
          {"{\"type\":\"integer\",\"minimum\":9007199254740993,\"exclusiveMaximum\":"
           "9007199254740994}",
           {"9007199254740993"},
           {"9007199254740992", "9007199254740994"}},
          {"{\"enum\":[18446744073709551617,1.0,-0,1e2]}",
           {"18446744073709551617", "1", "1.0", "0", "-0", "100", "1e2"},
           {"18446744073709551616", "1.00", "10"}},
          {"{\"const\":1}", {"1"}, {"1.0", "1.1", "10"}},
          {"{\"type\":\"number\",\"minimum\":-0}", {"0", "-0", "0.1"}, {"-0.1"}},
          {"{\"type\":\"number\",\"exclusiveMinimum\":-0.0}", {"0.1"}, {"0", "-0", "-0.0"}},
          {"{\"enum\":[[1.0],[1e2],[1.5]],\"items\":{\"type\":\"integer\",\"minimum\":1}}",
           {"[1]", "[1.0]", "[100]"},
           {"[1.5]", "[2]"}},
          {"{\"enum\":[[0.10000000000000000000001],[0.1]],\"items\":{\"maximum\":0.1}}",
           {"[0.1]"},
           {"[0.10000000000000000000001]"}});
}
END_TEST

START_TEST(patterns)
{
    JUDGE(false, {"{\"type\":\"string\",\"pattern\":\"b\"}", {"\"abc\"", "\"b\""}, {"\"ac\"", "b"}},
          {"{\"type\":\"string\",\"pattern\":\"^a|c$\"}",
           {"\"ax\"", "\"xc\"", "\"a\""},
           {"\"xax\"", "\"cx\""}},
          {"{\"type\":\"string\",\"pattern\":\"(^foo$)|(^ba[rz]+$)\"}",
           {"\"foo\"", "\"barr\""},
           {"\"foobar\"", "\"xfoo\"", "\"ba\""}},
          {"{\"type\":\"string\",\"pattern\":\"(^|,)x(,|$)\"}",
           {"\"x\"", "\"a,x\"", "\"x,b\"", "\"a,x,b\""},
           {"\"ax\"", "\"xb\""}},
          {"{\"type\":\"string\",\"pattern\":\"^[^\\\"a]\\\\d{2,3}?$\"}",
           {"\"b12\"", "\"\\\\123\""},
           {"\"a12\"", "\"\\\"12\"", "\"b1\"", "\"b1234\""}});
}
END_TEST

START_TEST(objects)
{
    JUDGE(false,
          {"{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{}},\"required\":[\"b\"],"
           "\"type\":\"object\"}",
           {"{\"a\":1,\"b\":2}", "{\"b\":0}", "{\"b\":0, \"z\":[]}"},
           {"{}", "{\"b\":1,\"a\":1}", "{\"a\":\"1\",\"b\":2}", "{\"b\":1,\"b\":2}", "[]"}},
          {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"null\"},"
           "\"minProperties\":1,\"maxProperties\":2}",
           {"{\"x\":null}", "{\"x\":null,\"y\":null}"},
           {"{}", "{\"x\":1}", "{\"x\":null,\"y\":null,\"z\":null}"}},
          {"{\"type\":\"object\",\"properties\":{\"pa\":{\"minimum\":3}},\"patternProperties\":"
           "{\"^p\":{\"type\":\"integer\"},\"q$\":{\"maximum\":5}},\"additionalProperties\":false}",
           {"{\"pa\":3}", "{\"pb\":9}", "{\"pq\":5}", "{\"xq\":4.5}"},
           {"{\"pa\":2}", "{\"pq\":6}", "{\"pq\":4.5}", "{\"zz\":1}"}},
          {"{\"type\":\"object\",\"propertyNames\":{\"maxLength\":2}}",
           {"{\"ab\":1}"},
           {"{\"abc\":1}"}},
          {"{\"type\":\"object\",\"dependentRequired\":{\"a\":[\"b\"]}}",
           {"{}", "{\"b\":1}", "{\"a\":1,\"b\":1}"},
           {"{\"a\":1}"}},
          {"{\"type\":\"object\",\"dependentSchemas\":{\"a\":{\"properties\":{\"b\":false}}}}",
           {"{\"b\":1}", "{\"a\":1}", "{}"},
           {"{\"a\":1,\"b\":1}", "{\"b\":1,\"a\":1}"}},
          {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1}],\"items\":{\"type\":\"string\"},"
           "\"minItems\":1,\"maxItems\":3}",
           {"[1]", "[1, \"a\",\"b\"]"},
           {"[]", "[\"a\"]", "[1,1]", "[1,\"a\",\"b\",\"c\"]"}});
    JUDGE(false,
          {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":[\"a\",1,null,1.0]},"
           "\"minItems\":1}",
           {"[1]", "[\"a\", 1,null]", "[null,\"a\"]"},
           {"[]", "[1,1]", "[1,\"a\",1.0]", "[2]", "[1,]"}},
          {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"type\":\"boolean\"}}",
           {"[]", "[true,false]"},
           {"[true,true]", "[null]", "[true,false,true]"}},
          {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":[\"ab\",\"b\"],"
           "\"minLength\":2}}",
           {"[\"ab\"]", "[]"},
           {"[\"b\"]", "[\"ab\",\"ab\"]"}},
          {"{\"type\":\"array\",\"uniqueItems\":true,\"maxItems\":1}", {"[1]"}, {"[1,1]"}});
    JUDGE(true, {"{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},\"required\":[\"b\"],"
                 "\"additionalProperties\":false,\"maxProperties\":2}",
                 {"{\"b\":1,\"a\":1}", "{\"a\":1,\"b\":1}", "{\"b\":1}"},
                 {"{\"a\":1}", "{\"b\":1,\"b\":1}", "{\"b\":1,\"c\":1}"}});
}
END_TEST

START_TEST(combined)
{
    JUDGE(
        false,
        {"{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":2}}},{\"properties\":{\"a\":{"
         "\"maximum\":4}},\"required\":[\"a\"]}],\"type\":\"object\"}",
         {"{\"a\":2}", "{\"a\":3.5}"},
         {"{\"a\":1}", "{\"a\":5}", "{}"}},
        {"{\"oneOf\":[{\"properties\":{\"k\":{\"const\":1},\"v\":{\"type\":\"string\"}},"
         "\"required\":[\"k\"]},{\"properties\":{\"k\":{\"const\":2}},\"required\":[\"k\"]}],"
         "\"type\":\"object\"}",
         {"{\"k\":1,\"v\":\"\"}", "{\"k\":2,\"v\":7}"},
         {"{\"k\":3}", "{}", "{\"k\":1,\"v\":7}"}},
        {"{\"oneOf\":[{\"type\":\"integer\",\"maximum\":5},{\"type\":\"integer\",\"minimum\":3}]}",
         {"2", "6", "-1"},
         {"3", "5", "4"}},
        {"{\"oneOf\":[{\"type\":\"string\"},{\"enum\":[\"a\",1]}]}",
         {"\"b\"", "1"},
         {"\"a\"", "\"\\u0061\"", "2"}},
        {"{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"next\":{\"$ref\":"
         "\"#/$defs/t\"}},\"additionalProperties\":false}},\"$ref\":\"#/$defs/t\"}",
         {"{}", "{\"next\":{\"next\":{\"next\":{}}}}"},
         {"{\"next\":1}", "{\"next\":{\"x\":{}}}"}},
        {"{\"definitions\":{\"a\":{\"minimum\":1}},\"properties\":{\"x\":{\"$ref\":"
         "\"#/definitions/a\",\"maximum\":2}},\"$schema\":"
         "\"http://json-schema.org/draft-07/schema#\",\"type\":\"object\"}",
         {"{\"x\":9}", "{\"x\":\"s\"}"},
         {"{\"x\":0}"}},
        {"{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\"}],\"maxLength\":1,\"maxItems\":1}",
         {"\"a\"", "[1]"},
         {"\"ab\"", "[1,2]", "1"}},
        {"{\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}],\"$defs\":{\"n\":{\"items\":"
         "{\"$ref\":\"#\"},\"type\":\"array\"}}}",
         {"null", "[[null,[]]]"},
         {"[1]", "{}"}});
}
END_TEST

START_TEST(negated)
{
    JUDGE(false,
          {"{\"type\":[\"object\",\"null\"],\"oneOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\","
           "\"c\"]}]}",
           {"{\"a\":1}", "{\"b\":1,\"c\":1}", "{\"a\":1,\"b\":1}"},
           {"{}", "{\"a\":1,\"b\":1,\"c\":1}", "{\"b\":1}", "null"}},
          {"{\"not\":{\"type\":[\"integer\",\"object\"]}}",
           {"1.5", "\"\"", "[{}]", "true"},
           {"1", "{}", "-0"}},
          {"{\"type\":\"string\",\"not\":{\"anyOf\":[{\"pattern\":\"^a\"},{\"maxLength\":2}]}}",
           {"\"bcd\""},
           {"\"abc\"", "\"bc\"", "\"\\u0061bc\""}},
          {"{\"not\":{\"enum\":[1,\"x\",null]},\"type\":[\"number\",\"string\",\"null\"]}",
           {"2", "\"y\"", "1.5"},
           {"1", "1.0", "1e0", "\"x\"", "\"\\u0078\"", "null"}},
          {"{\"type\":\"object\",\"not\":{\"properties\":{\"k\":{\"minimum\":3}}}}",
           {"{\"k\":2}"},
           {"{\"k\":3}", "{}", "{\"k\":\"\"}"}},
          {"{\"type\":\"object\",\"if\":{\"properties\":{\"t\":{\"const\":\"x\"}},\"required\":"
           "[\"t\"]},\"then\":{\"required\":[\"v\"]},\"else\":{\"properties\":{\"v\":false}}}",
           {"{\"t\":\"x\",\"v\":1}", "{\"t\":\"y\"}", "{}"},
           {"{\"t\":\"x\"}", "{\"t\":\"y\",\"v\":1}", "{\"v\":1}"}},
          {"{\"not\":{\"not\":{\"type\":\"null\"}}}", {"null"}, {"1"}});
}
END_TEST

/* J5: where several lists of properties meet, the order of each is kept, and no other. */
START_TEST(merged_order)
{
    JUDGE(false,
          {"{\"type\":\"object\",\"properties\":{\"type\":{},\"crs\":{}},\"required\":[\"type\"],"
           "\"anyOf\":[{\"properties\":{\"type\":{\"const\":\"P\"},\"at\":{}},\"required\":[\"at\"]"
           "}]}",
           {"{\"type\":\"P\",\"crs\":1,\"at\":2}", "{\"type\":\"P\",\"at\":2,\"crs\":1}",
            "{\"type\":\"P\",\"at\":2,\"crs\":1,\"z\":1}",
            "{\"type\":\"P\",\"at\":2,\"z\":1,\"z\":2}"},
           {"{\"crs\":1,\"type\":\"P\",\"at\":2}", "{\"at\":2,\"type\":\"P\"}",
            "{\"type\":\"P\",\"z\":1,\"at\":2}", "{\"type\":\"P\",\"at\":1,\"z\":1,\"crs\":1}",
            "{\"type\":\"P\",\"at\":1,\"at\":1}", "{\"type\":\"P\"}"}},
          {"{\"type\":\"object\",\"allOf\":[{\"properties\":{\"a\":{},\"b\":{}}},{\"properties\":{"
           "\"b\":{},\"a\":{},\"c\":{}}}]}",
           {"{\"a\":1,\"b\":1,\"c\":1}", "{\"a\":1,\"c\":1,\"b\":1}", "{\"c\":1,\"b\":1}"},
           {"{\"b\":1,\"a\":1}", "{\"c\":1,\"a\":1}"}},
          {"{\"type\":\"object\",\"allOf\":[{\"properties\":{\"a\":{},\"c\":{}}},{\"properties\":{"
           "\"a\":{},\"b\":{},\"c\":{}}}]}",
           {"{\"a\":1,\"b\":1,\"c\":1}"},
           {"{\"a\":1,\"c\":1,\"b\":1}"}},
          {"{\"type\":\"object\",\"allOf\":[{\"properties\":{\"a\":{},\"b\":{}}},{\"properties\":{"
           "\"a\":{},\"c\":{}}}],\"propertyNames\":{\"enum\":[\"a\",\"b\",\"c\"]},"
           "\"minProperties\":3}",
           {"{\"a\":1,\"b\":1,\"c\":1}", "{\"a\":1,\"c\":1,\"b\":1}"},
           {"{\"b\":1,\"c\":1}", "{\"c\":1,\"a\":1,\"b\":1}"}},
          {"{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{},\"c\":false},"
           "\"additionalProperties\":false,\"minProperties\":2}",
           {"{\"a\":1,\"b\":1}"},
           {"{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"c\":1}"}});
}
END_TEST

/* A schema with an identifier is a document of its own; where there is only text that looks like an
 * identifier, it is none. */
START_TEST(references)
{
    JUDGE(false,
          {"{\"$id\":\"http://x/root.json\",\"properties\":{\"a\":{\"$ref\":\"#/$defs/"
           "t\"},\"b\":{\"$ref\":\"http://x/in.json#/$defs/t\"},\"c\":{\"$ref\":\"http://x/"
           "root.json#/$defs/t\"},\"d\":{\"$ref\":\"http://x/"
           "in.json\"},\"e\":{\"$ref\":\"urn:u:1#k\"}},\"$defs\":{\"t\":{\"type\":\"null\"},\"in\":"
           "{\"$id\":\"http://x/in.json\",\"properties\":{\"v\":{\"$ref\":\"#/$defs/"
           "t\"}},\"$defs\":{\"t\":{\"type\":\"boolean\"}}},\"u\":{\"$id\":\"urn:u:1\",\"anyOf\":[{"
           "\"$anchor\":\"k\",\"type\":\"string\"}]}},\"type\":\"object\"}",
           {"{\"a\":null,\"b\":true,\"c\":null,\"d\":{\"v\":false},\"e\":\"\"}"},
           {"{\"a\":true}", "{\"b\":null}", "{\"c\":true}", "{\"d\":{\"v\":null}}", "{\"e\":1}"}},
          {"{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\"},\"x\":{\"$ref\":\"#/"
           "$defs/t\"}},\"default\":{\"$id\":\"http://x/"
           "y\"},\"$defs\":{\"t\":{\"id\":\"t\",\"items\":{\"$ref\":\"#/$defs/"
           "n\"}},\"n\":{\"$dynamicAnchor\":\"n\",\"type\":\"null\"}}}",
           {"{\"x\":[null]}"},
           {"{\"x\":[1]}"}},
          {"{\"$ref\":\"#a\",\"$defs\":{\"v\":{\"const\":{\"$anchor\":\"a\"}},\"w\":{\"$anchor\":"
           "\"a\",\"type\":\"integer\"}}}",
           {"1"},
           {"\"x\"", "{\"$anchor\":\"a\"}"}},
          {"{\"$schema\":\"http://json-schema.org/draft-04/schema#\",\"id\":\"http://x/"
           "r\",\"properties\":{\"a\":{\"$ref\":\"http://x/r#/definitions/t\",\"id\":\"http://x/"
           "z\"}},\"definitions\":{\"t\":{\"id\":\"#t\",\"type\":\"null\"},\"s\":{\"$ref\":\"#t\"}}"
           ",\"additionalProperties\":{\"$ref\":\"#t\"},\"type\":\"object\"}",
           {"{\"a\":null,\"b\":null}"},
           {"{\"a\":1}", "{\"b\":1}"}});
}
END_TEST

/* contains with its bounds; an item that must occur never leads to where it no longer fits. */
START_TEST(counted)
{
    JUDGE(false,
          {"{\"type\":\"array\",\"contains\":{\"const\":1}}",
           {"[1]", "[0,1]", "[1,1,\"a\"]"},
           {"[]", "[2]", "[\"1\"]"}},
          {"{\"type\":\"array\",\"contains\":{\"type\":\"integer\"},\"minContains\":2,"
           "\"maxContains\":3,\"maxItems\":4}",
           {"[1,2]", "[1,\"\",2,3]"},
           {"[1]", "[1,2,3,4]", "[\"\",1,\"\",\"\"]"}},
          {"{\"type\":\"array\",\"contains\":{\"type\":\"null\"},\"minContains\":0,\"maxContains\":"
           "1}",
           {"[]", "[1]", "[null,1]"},
           {"[null,null]", "[null,1,null]"}},
          {"{\"type\":\"array\",\"contains\":{\"type\":\"null\"},\"maxContains\":0,\"minContains\":"
           "0}",
           {"[]", "[1]"},
           {"[null]"}},
          {"{\"prefixItems\":[{\"type\":\"string\"},{}],\"items\":false,\"contains\":{\"type\":"
           "\"number\"},\"type\":\"array\"}",
           {"[\"a\",1]"},
           {"[\"a\"]", "[]", "[\"a\",\"b\"]", "[1]"}},
          {"{\"type\":\"array\",\"contains\":{\"type\":\"null\"},\"minItems\":2,\"maxItems\":2}",
           {"[null,1]", "[1,null]", "[null,null]"},
           {"[1,2]", "[null]"}},
          {"{\"type\":\"array\",\"items\":{\"contains\":{\"const\":\"x\"},\"type\":\"array\"},"
           "\"contains\":{\"maxItems\":1}}",
           {"[[\"x\"]]", "[[\"a\",\"x\"],[\"x\"]]"},
           {"[[\"a\",\"x\"]]", "[[]]", "[[\"a\"]]"}},
          {"{\"$schema\":\"http://json-schema.org/draft-04/"
           "schema#\",\"type\":\"array\",\"contains\":{\"const\":1}}",
           {"[]", "[2]"},
           {"{}"}});
}
END_TEST

/* Several demands at one place, met by one or by several. */
START_TEST(demands)
{
    static const verdicts table[] = {
        {"{\"type\":\"array\",\"allOf\":[{\"contains\":{\"const\":1}},{\"contains\":{\"minimum\":3}"
         "}]}",
         {"[1,3]", "[4,1,0]", "[\"\",1,\"\",5]"},
         {"[1]", "[3]", "[]", "[1,1]"}},
        {"{\"type\":\"array\",\"maxItems\":2,\"items\":{\"type\":\"integer\"},\"allOf\":[{"
         "\"contains\":{\"minimum\":1},\"minContains\":2},{\"contains\":{\"maximum\":2}}]}",
         {"[1,2]", "[2,9]", "[9,1]"},
         {"[0,3]", "[3,4]", "[1]", "[1,0]"}},
        {"{\"type\":\"object\",\"allOf\":[{\"not\":{\"additionalProperties\":{\"type\":\"integer\"}"
         "}},{\"not\":{\"patternProperties\":{\"^a\":{\"type\":\"string\"}}}}]}",
         {"{\"b\":\"x\",\"a\":1}", "{\"a\":null}", "{\"a\":1,\"a2\":1,\"b\":true}"},
         {"{\"a\":1}", "{\"b\":\"x\"}", "{}"}},
        {"{\"type\":\"object\",\"maxProperties\":1,\"allOf\":[{\"not\":{\"additionalProperties\":{"
         "\"type\":\"integer\"}}},{\"not\":{\"patternProperties\":{\"^a\":{\"type\":\"string\"}}}}]"
         "}",
         {"{\"a\":null}"},
         {"{\"a\":1}", "{\"a\":1,\"b\":null}", "{}"}}};
    judge(table, sizeof table / sizeof *table, false);
    judge(table, sizeof table / sizeof *table, true);
}
END_TEST

/* J5: the negation of what arrays, objects and conditions say; an overlap of branches taken out. */
START_TEST(negated_containers)
{
    static const verdicts table[] = {
        {"{\"type\":\"array\",\"not\":{\"items\":{\"type\":\"integer\"}}}",
         {"[1.5]", "[1,\"a\"]"},
         {"[]", "[1]"}},
        {"{\"type\":\"array\",\"not\":{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":"
         "false}}",
         {"[2]", "[1,1]", "[1,2,3]"},
         {"[]", "[1]", "[1,2]"}},
        {"{\"type\":\"array\",\"not\":{\"minItems\":2}}", {"[]", "[1]"}, {"[1,2]"}},
        {"{\"type\":\"array\",\"not\":{\"maxItems\":1,\"minItems\":0}}",
         {"[1,2]", "[1,2,3]"},
         {"[]", "[1]"}},
        {"{\"type\":\"array\",\"not\":{\"contains\":{\"type\":\"null\"}}}",
         {"[]", "[1]"},
         {"[null]", "[1,null]"}},
        {"{\"type\":\"object\",\"not\":{\"minProperties\":1}}", {"{}"}, {"{\"a\":1}"}},
        {"{\"type\":\"object\",\"not\":{\"properties\":{\"a\":{}},\"additionalProperties\":{"
         "\"type\":\"integer\"}}}",
         {"{\"b\":\"x\"}", "{\"a\":1,\"b\":1,\"c\":null}"},
         {"{}", "{\"a\":\"x\"}", "{\"b\":1}"}},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{}},\"required\":["
         "\"a\"],\"not\":{\"patternProperties\":{\"^a|^x\":{\"maxLength\":1}}}}",
         {"{\"a\":\"xy\"}", "{\"a\":\"x\",\"xx\":\"long\"}", "{\"a\":\"xy\",\"b\":1}"},
         {"{\"a\":\"x\"}", "{\"a\":\"x\",\"b\":\"long\"}", "{\"a\":1}"}},
        {"{\"type\":\"object\",\"properties\":{\"abc\":{\"type\":\"null\"},\"d\":{}},\"required\":["
         "\"d\"],\"maxProperties\":2,\"not\":{\"propertyNames\":{\"maxLength\":2}}}",
         {"{\"abc\":null,\"d\":1}", "{\"d\":1,\"xyz\":1}"},
         {"{\"d\":1}", "{\"d\":1,\"e\":1}", "{\"d\":1,\"e\":1,\"xyz\":1}"}},
        {"{\"type\":\"object\",\"not\":{\"dependentRequired\":{\"a\":[\"b\"]}}}",
         {"{\"a\":1}"},
         {"{}", "{\"a\":1,\"b\":1}", "{\"b\":1}"}},
        {"{\"not\":{\"if\":{\"type\":\"integer\"},\"then\":{\"minimum\":3},\"else\":{\"type\":"
         "\"null\"}}}",
         {"2", "\"x\""},
         {"3", "null"}},
        {"{\"type\":\"number\",\"not\":{\"oneOf\":[{\"type\":\"integer\"},{\"minimum\":3}]}}",
         {"3", "4", "1.5"},
         {"1", "3.5"}},
        {"{\"not\":{\"type\":\"string\",\"format\":\"date\"}}",
         {"1", "null"},
         {"\"x\"", "\"2020-01-01\""}},
        {"{\"oneOf\":[{\"type\":\"array\",\"items\":{\"type\":\"null\"}},{\"type\":\"array\","
         "\"minItems\":2}]}",
         {"[]", "[null]", "[1,2]", "[null,1]"},
         {"[null,null]", "[1]"}},
        {"{\"type\":\"object\",\"oneOf\":[{\"properties\":{\"a\":{}},\"additionalProperties\":"
         "false},{\"properties\":{\"b\":{}},\"additionalProperties\":false}]}",
         {"{\"a\":1}", "{\"b\":1}"},
         {"{}", "{\"a\":1,\"b\":1}", "{\"c\":1}"}},
        {"{\"oneOf\":[{\"required\":[\"a\"],\"properties\":{\"a\":{\"const\":1}},"
         "\"additionalProperties\":false},{\"required\":[\"a\"],\"properties\":{\"a\":{\"const\":2}"
         "},\"additionalProperties\":false}]}",
         {"{\"a\":1}", "{\"a\":2}"},
         {"{}", "1", "{\"a\":3}", "[]"}}};
    judge(table, sizeof table / sizeof *table, false);
    judge(table, sizeof table / sizeof *table, true);
}
END_TEST

START_TEST(refusals)
{
    static const struct {
        const char *schema, *code, *words;
    } t[] = {
        {"{\"properties\":{\"a/b\":{\"unevaluatedItems\":false,\"type\":\"array\"}}}",
         "unsupported_schema", "keyword \"unevaluatedItems\" at #/properties/a~1b"},
        {"{\"allOf\":[{\"contains\":{}},{\"contains\":{\"const\":1}},{\"contains\":{\"const\":2}},"
         "{\"contains\":{\"const\":3}}]}",
         "unsupported_schema", "more than 3 demands"},
        {"{\"allOf\":[{\"contains\":{\"const\":1}},{\"contains\":{\"const\":2},\"maxContains\":2}]"
         "}",
         "unsupported_schema", "with a bound"},
        {"{\"type\":\"array\",\"items\":{\"enum\":[1,2]},\"contains\":{\"const\":3}}",
         "unsatisfiable_schema", "nothing"},
        {"{\"$ref\":\"http://x/y\"}", "unsupported_schema", "keyword \"$ref\" at #: "},
        {"{\"$ref\":\"#/nowhere\"}", "invalid_schema", "leads nowhere"},
        {"{\"items\":{\"$id\":\"http://x/y\",\"items\":{\"$ref\":\"#/$defs/"
         "t\"}},\"$defs\":{\"t\":{}}}",
         "invalid_schema", "leads nowhere"},
        {"{\"items\":{\"$id\":\"y\"},\"not\":{\"$ref\":\"y\"}}", "unsupported_schema",
         "\"y\" is not"},
        {"{\"$ref\":\"#\"}", "invalid_schema", "itself"},
        {"{\"anyOf\":[{\"$ref\":\"#\"}]}", "grammar_too_complex", "too much work"},
        {"{\"type\":\"strin\"}", "invalid_schema", "keyword \"type\""},
        {"{\"pattern\":\"(?=a)\"}", "unsupported_schema", "look-around"},
        {"{\"pattern\":\"(a)\\\\1\"}", "unsupported_schema", "back-reference"},
        {"{\"pattern\":\"a**\"}", "unsupported_schema", "nothing to repeat"},
        {"{\"minItems\":-1}", "invalid_schema", "keyword \"minItems\""},
        {"{\"uniqueItems\":true}", "unsupported_schema", "uniqueItems"},
        {"{\"uniqueItems\":true,\"prefixItems\":[{},{}],\"items\":false}", "unsupported_schema",
         "uniqueItems"},
        {"{\"oneOf\":[{\"uniqueItems\":true,\"items\":{\"enum\":[1,2]}},{\"minItems\":2}]}",
         "unsupported_schema", "branches 0 and 1"},
        {"{\"type\":\"string\",\"pattern\":\"^(?:a{1000}){2}$\",\"maxLength\":1999}",
         "unsatisfiable_schema", "nothing"},
        {"false", "unsatisfiable_schema", "nothing"},
        {"{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":false}}",
         "unsatisfiable_schema", "nothing"},
        {"{\"$defs\":{\"t\":{\"type\":\"object\",\"required\":[\"t\"],\"properties\":{\"t\":"
         "{\"$ref\":\"#/$defs/t\"}}}},\"$ref\":\"#/$defs/t\"}",
         "unsatisfiable_schema", "nothing"},
        {"{\"a\":1,\"a\":2}", "invalid_schema", "the schema"},
        {"[]", "invalid_schema", "an object or a boolean"},
        {"{", "invalid_schema", "the schema"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        grammar *g = NULL;
        grammar_error why;
        const grammar_spec s = {
            .kind = GRAMMAR_SCHEMA, .text = t[i].schema, .n = strlen(t[i].schema)};
        ck_assert_msg(grammar_compile(&s, &g, &why) < 0, "%s compiles", t[i].schema);
        ck_assert_msg(why.code && !strcmp(why.code, t[i].code) && strstr(why.e.msg, t[i].words),
                      "%s: %s: %s", t[i].schema, why.code, why.e.msg);
    }
}
END_TEST

/* E3: up to eight faults, each with keyword and pointer, and none that only follows from another.
 */
START_TEST(several_faults)
{
    static const char digits[] = "1111111111222222222233333333334444444444555555555566666666667";
    static const struct {
        const char *schema;
        int n;
        const char *more[GRAMMAR_MAX_FAULTS];
    } t[] = {
        {"{\"properties\":{\"a\":{\"$dynamicRef\":\"#x\",\"pattern\":\"(?=x)\"},\"b/c\":{\"type\":"
         "\"strin\"},\"d\":5,\"e\":{\"items\":{\"$ref\":\"#/$defs/"
         "f\"}}},\"$defs\":{\"f\":{\"minLength\":"
         "-1}},\"minProperties\":\"x\"}",
         5,
         {"keyword \"$dynamicRef\" at #/properties/a: ", "keyword \"pattern\" at #/properties/a: ",
          "keyword \"type\" at #/properties/b~1c: ", "keyword \"schema\" at #/properties/d: ",
          "keyword \"minLength\" at #/$defs/f: "}},
        {"{\"allOf\":[{\"enum\":[%s,1,%s]},{\"multipleOf\":0}]}",
         2,
         {"keyword \"enum\" at #/allOf/0/enum/2: ", "keyword \"multipleOf\" at #/allOf/1: "}},
        {"{\"oneOf\":[{\"type\":\"array\",\"items\":{\"type\":\"nul\"}},{\"type\":\"array\","
         "\"items\":"
         "{\"type\":\"null\"}}]}",
         0,
         {NULL}},
        {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":5},\"minItems\":1}",
         0,
         {NULL}},
        {"5", 0, {NULL}},
        {"{\"anyOf\":[{\"type\":0},{\"type\":1},{\"type\":2},{\"type\":3},{\"type\":4},{\"type\":5}"
         ","
         "{\"type\":6},{\"type\":7},{\"type\":8},{\"type\":9}]}",
         GRAMMAR_MAX_FAULTS - 1,
         {"#/anyOf/1: ", "#/anyOf/2: ", "#/anyOf/3: ", "#/anyOf/4: ", "#/anyOf/5: ", "#/anyOf/6: ",
          "#/anyOf/7: "}},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        grammar *g = NULL;
        grammar_error why;
        char text[1000];
        snprintf(text, sizeof text, t[i].schema, digits, digits);
        const grammar_spec s = {.kind = GRAMMAR_SCHEMA, .text = text, .n = strlen(text)};
        ck_assert_int_lt(grammar_compile(&s, &g, &why), 0);
        ck_assert_msg(why.n_more == t[i].n, "%s: %d more, the first %s", text, why.n_more,
                      why.n_more ? why.more[0].msg : "");
        for (int k = 0; k < why.n_more; k++)
            ck_assert_msg(strstr(why.more[k].msg, t[i].more[k]) && why.more[k].code, "%s: %s", text,
                          why.more[k].msg);
    }
}
END_TEST

START_TEST(other_kinds)
{
    grammar *g;
    grammar_error why;
    static const char *const words[] = {"yes", "no", "yellow"};
    const grammar_spec choice = {.kind = GRAMMAR_CHOICE, .choices = words, .n_choices = 3};
    const grammar_spec regex = {.kind = GRAMMAR_REGEX, .text = "[a-c]{2}|\xc3\xa9\"+", .n = 13};
    const grammar_spec object = {.kind = GRAMMAR_JSON_OBJECT};
    ck_assert_int_eq(grammar_compile(&choice, &g, &why), 0);
    ck_assert_int_eq(grammar_accepts(g, "yellow", 6), 1);
    ck_assert_int_eq(grammar_accepts(g, "ye", 2), 0);
    ck_assert_int_eq(grammar_accepts(g, "no!", 3), 0);
    grammar_release(grammar_ref(g));
    grammar_release(g);
    ck_assert_int_eq(grammar_compile(&regex, &g, &why), 0);
    ck_assert_int_eq(grammar_accepts(g, "ab", 2), 1);
    ck_assert_int_eq(grammar_accepts(g, "abc", 3), 0);
    ck_assert_int_eq(grammar_accepts(g, "\xc3\xa9\"\"", 4), 1);
    grammar_release(g);
    ck_assert_int_eq(grammar_compile(&object, &g, &why), 0);
    ck_assert_int_eq(grammar_accepts(g, "{\"a\":[]}", 8), 1);
    ck_assert_int_eq(grammar_accepts(g, "[]", 2), 0);
    grammar_release(g);
}
END_TEST

static void answer_is(grammar_think think, const grammar_spec *body, const char *const *yes,
                      const char *const *no)
{
    grammar *g;
    grammar_error why;
    const grammar_answer a = {.think = think, .body = body};
    ck_assert_msg(grammar_compile_answer(&a, &g, &why) == 0, "%s", why.e.msg);
    for (; *yes; yes++)
        ck_assert_msg(grammar_accepts(g, *yes, strlen(*yes)) == 1, "%d rejects %s", think, *yes);
    for (; *no; no++)
        ck_assert_msg(grammar_accepts(g, *no, strlen(*no)) == 0, "%d accepts %s", think, *no);
    grammar_release(g);
}
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

/* J3, R1: the grammar rules what follows the thought, the prompt says whether there is one. */
START_TEST(thoughts)
{
    static const char *const words[] = {"yes", "no"};
    const grammar_spec body = {.kind = GRAMMAR_CHOICE, .choices = words, .n_choices = 2};
    answer_is(GRAMMAR_THINK_NONE, &body, LIST("yes", "no"),
              LIST("", "maybe", "</think>yes", "<think></think>yes", "\nyes"));
    answer_is(GRAMMAR_THINK_OPEN, &body,
              LIST("</think>yes", "a <think> \xe9\n</think>\n\nno", "</thi</think> \t\n\nyes"),
              LIST("", "yes", "a", "a</think>", "a</think>maybe", "a</think>     yes",
                   "a</think></think>yes", "a</think>yes\n"));
    answer_is(GRAMMAR_THINK_MAY, &body,
              LIST("yes", "<think>\na\n</think>\n\nyes", "\n<think></think>no"),
              LIST("", "maybe", "<think>yes", "</think>yes", "<think>a</think>", "<thin</think>yes",
                   "<think>a</think><think>b</think>yes"));
    answer_is(GRAMMAR_THINK_OPEN, NULL, LIST("", "a", "a</think>", "a</think></think> b"),
              LIST("\xff\1\2\3"));
    answer_is(GRAMMAR_THINK_MAY, NULL, LIST("", "a", "<think>a", "<think></think>b"),
              LIST("a\xff"));
}
END_TEST

/* Patterns that blow up elsewhere, counters, wide objects: bounded, and right. */
START_TEST(hostile)
{
    char *big = malloc(1 << 20), *p = big;
    JUDGE(false,
          {"{\"type\":\"string\",\"pattern\":\"^(([a-z]+)+)+$\"}",
           {"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""},
           {"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\""}},
          {"{\"type\":\"string\",\"pattern\":\"^((a{1000}){1000}){1000}$\"}", {NULL}, {"\"aa\""}},
          {"{\"type\":\"array\",\"minItems\":1,\"maxItems\":1000000000}", {"[1]"}, {"[]"}},
          {"{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){13}$\"}",
           {"\"abbbbbbbbbbbbb\""},
           {"\"bbbbbbbbbbbbbb\""}});
    p += sprintf(p, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 1000; i++)
        p += sprintf(p, "%s\"k%d\":{\"type\":\"integer\"}", i ? "," : "", i);
    sprintf(p, "}}");
    grammar *g = compile(big, false);
    ck_assert_int_eq(grammar_accepts(g, "{\"k3\":1,\"k999\":2}", 17), 1);
    ck_assert_int_eq(grammar_accepts(g, "{\"k999\":1,\"k3\":2}", 17), 0);
    ck_assert_int_eq(grammar_accepts(g, "{\"k3\":\"\"}", 9), 0);
    grammar_release(g);
    memset(big, '[', 2000);
    g = compile("true", false);
    ck_assert_int_eq(grammar_accepts(g, big, 2000), ERR_LIMIT);
    ck_assert_int_eq(grammar_accepts(g, "[]", 2), 1); /* and goes on afterwards */
    grammar_release(g);
    free(big);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("grammar");
    TCase *t = tcase_create("grammar");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, any_json);
    tcase_add_test(t, scalars);
    tcase_add_test(t, long_numbers);
    tcase_add_test(t, patterns);
    tcase_add_test(t, objects);
    tcase_add_test(t, combined);
    tcase_add_test(t, negated);
    tcase_add_test(t, merged_order);
    tcase_add_test(t, references);
    tcase_add_test(t, counted);
    tcase_add_test(t, demands);
    tcase_add_test(t, negated_containers);
    tcase_add_test(t, refusals);
    tcase_add_test(t, several_faults);
    tcase_add_test(t, other_kinds);
    tcase_add_test(t, thoughts);
    tcase_add_test(t, hostile);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
